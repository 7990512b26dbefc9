"""Several processes that train as one, set up by accelerate, and what ends them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor

from drc.core.errors import TrainingError, UsageError
from drc.core.messages import ALONE, APART, is_loss, set_state, state_of


def join_processes(device: torch.device) -> tuple[Accelerator, torch.device]:
    """Join the processes that `torchrun` or `accelerate launch` started; alone without them.

    Args:
        device: the one asked for.

    Returns:
        The accelerator, and the device of this process: its own GPU among several, else `device`.

    Raises:
        UsageError: accelerate is already set up here with another device or precision.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # A static graph lets parameters go unused, as a network of the user's may leave some.
    options = DistributedDataParallelKwargs(static_graph=True)
    try:
        # Placement and autocast stay with us: accelerate fixes both once per Python process.
        accelerator = Accelerator(
            cpu=several and device.type == "cpu",
            device_placement=False,
            mixed_precision="no",
            kwargs_handlers=[options],
        )
    except ValueError as error:
        raise UsageError(
            "accelerate was set up in this process with another device or precision; call drc "
            "before making an Accelerator, or make it with mixed_precision='no'"
        ) from error
    return accelerator, accelerator.device if accelerator.num_processes > 1 else device


def share_of(batch: Tensor, accelerator: Accelerator) -> Tensor:
    """This process's rows of a batch, equally many in each; early rows fill up a short batch."""
    count = accelerator.num_processes
    if count == 1:
        return batch
    share = -(-len(batch) // count)
    first = accelerator.process_index * share
    return batch[torch.arange(first, first + share, device=batch.device) % len(batch)]


def process_share() -> tuple[int, int]:
    """Number of this process, and how many a launcher started."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def apart() -> Iterator[None]:
    """A block of which the others may not hear how it ended: they may wait for gradients there."""
    try:
        yield
    except BaseException as error:
        if not state_of(error):
            set_state(error, APART)
        raise


@contextmanager
def losses_told(
    done: Callable[[], int], saved: Callable[[], int], checkpoint: Path | None
) -> Iterator[None]:
    """A block of training that says so when another process of the job is lost.

    torch raises what its transport met, such as a connection that the other side has closed.

    Args:
        done: how many steps are done.
        saved: the step of the last checkpoint, 0 before the first.
        checkpoint: where that is.

    Raises:
        TrainingError: in place of what torch raised.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        kept = "no checkpoint was saved yet"
        if saved() and checkpoint is not None:
            kept = f"the checkpoint of step {saved()} in {checkpoint} is kept"
        lost = TrainingError(
            f"another process of this job was lost at step {done() + 1} (killed, or out of "
            f"memory?); {kept}; start the same command again with --resume"
        )
        set_state(lost, ALONE)
        raise lost from error


__all__ = ["apart", "join_processes", "losses_told", "process_share", "share_of"]

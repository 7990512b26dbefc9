"""Several processes that train as one, set up by accelerate."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor

from drc.errors import UsageError


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


__all__ = ["join_processes", "process_share", "share_of"]

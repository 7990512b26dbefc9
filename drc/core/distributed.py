"""Several processes at one job, as `torchrun` or `accelerate launch` start them.

All run the same program. Each takes its shard of the crops, and what they find is added up. What
there is one of (a plan, a file, a measurement) the first process makes, and the others get it from
there, or the error that came instead. Without a launcher all of this costs nothing and changes
nothing.
"""

from __future__ import annotations

import atexit
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from drc.core.errors import DrcError, RunError, UsageError
from drc.core.randomness import RandomState
from drc.core.runtime import resolve_device

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

_WAIT = timedelta(days=7)  # the first may search, or measure, for as long as it takes
_PATIENCE = timedelta(seconds=5)


@dataclass
class _Team:
    """The processes of the job.

    Attributes:
        group: what carries results; on the CPU, whatever the training uses.
        exits: what carries the word that a process leaves a block.
        index: of this process.
        count: of all.
        alone: the first is at work on its own, and the others wait for it.
        failed: all have left a block by an error.
        broken: one has left without the others' knowledge.
    """

    group: Any
    exits: Any
    index: int
    count: int
    alone: bool = False
    failed: bool = False
    broken: bool = False


_team: _Team | None = None


@contextmanager
def together(device: str | torch.device = "auto") -> Iterator[torch.device]:
    """A block that all processes run and leave together; yields this one's device.

    Args:
        device: the one asked for; several GPU processes of a machine get one GPU each.

    Raises:
        UsageError: no such device.
        RunError: another process was lost, or left the block by an error.
    """
    where = own_device(device)
    if _team is None:
        yield where
        return
    try:
        with losses_named():
            yield where
    except BaseException:
        with suppress(RunError):
            _leave(_team, failed=True)
        raise
    if _leave(_team, failed=False):
        raise RunError("another process of this job failed; its own message says why")


def own_device(device: str | torch.device) -> torch.device:
    """Find the other processes, if a launcher started some; the device of this one.

    Raises:
        UsageError: no such device.
    """
    global _team
    where = resolve_device(device)
    known = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if process_share()[1] == 1 and not known:
        return where
    where = join_processes(where)[1]
    if _team is None and dist.is_initialized():
        group, exits = (dist.new_group(backend="gloo", timeout=_WAIT) for _ in range(2))
        _team = _Team(group, exits, dist.get_rank(), dist.get_world_size())
        atexit.register(_part, _team)
    return where


def join_processes(device: torch.device) -> tuple[Accelerator, torch.device]:
    """What trains as one with the other processes; alone without a launcher.

    Args:
        device: the one asked for.

    Returns:
        The accelerator, and the device of this process: its own GPU among several, else `device`.

    Raises:
        UsageError: accelerate is already set up here with another device or precision.
    """
    from accelerate import Accelerator  # slow to import
    from accelerate.utils import DistributedDataParallelKwargs

    # A static graph lets parameters go unused, as a network of the user's may leave some.
    options = DistributedDataParallelKwargs(static_graph=True)
    try:
        # Placement and autocast stay with us: accelerate fixes both once per Python process.
        accelerator = Accelerator(
            cpu=process_share()[1] > 1 and device.type == "cpu",
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


def is_joined() -> bool:
    """Whether this is one of several processes that have found each other."""
    return _team is not None


def is_first() -> bool:
    """True in the one process that writes and prints; the only one without a launcher."""
    return _team is None or _team.index == 0


def all_failed() -> bool:
    """Whether every process has an error to print, of which that of the first is enough."""
    return _team is not None and _team.failed


def process_share() -> tuple[int, int]:
    """Number of this process, and how many a launcher started."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def size() -> int:
    """How many processes share what is being done: one, while the first is on its own."""
    return 1 if _team is None or _team.alone else _team.count


def on_first(work: Callable[[], T]) -> T:
    """Run `work` in the first process alone and return its result, or raise its error, in all.

    What it draws at random is drawn in the first alone, so its generators are put back: a loader
    that shuffles by them goes on alike everywhere.

    Args:
        work: its result has to be picklable, with tensors on the CPU.
    """
    team = _team
    if team is None or size() == 1:
        return work()
    if team.index:
        result, error = _from_first(team, None)
        if error is not None:
            raise error
        return result
    random, team.alone = RandomState.capture(), True
    try:
        result = work()
    except BaseException as error:
        with suppress(RunError):  # the error that is being raised says more
            _from_first(team, (None, _portable(error)))
        raise
    finally:
        team.alone = False
        random.restore()
    _from_first(team, (result, None))
    return result


def shard(items: Iterable[T]) -> Iterator[tuple[int, T]]:
    """Those of `items` that are this process's, every count-th, with their numbers."""
    start = 0 if _team is None or size() == 1 else _team.index
    return islice(enumerate(items), start, None, size())


def add_up(tensor: Tensor) -> Tensor:
    """The sum of the tensors that all processes give, on the CPU where there are several."""
    if _team is None or size() == 1:
        return tensor
    total = tensor.detach().cpu().clone()
    with losses_named():
        dist.all_reduce(total, group=_team.group)
    return total


def _lost() -> DrcError:
    return RunError(
        "another process of this job was lost (killed, or out of memory?); start the same command "
        "again, with --resume where it has a run folder"
    )


@contextmanager
def losses_named(make: Callable[[], DrcError] = _lost) -> Iterator[None]:
    """A block that raises the error of `make` when torch finds that another process has ended.

    gloo says so by a RuntimeError with a text of its own, NCCL and the store by their own types.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, dist.DistError) or "gloo" in text or "by peer" in text:
            raise make() from error
        raise


def _from_first(team: _Team, value: Any) -> Any:
    """What the first process gives for `value`, in all."""
    box = [value]
    with losses_named():
        dist.broadcast_object_list(box, src=0, group=team.group)
    return box[0]


def _leave(team: _Team, failed: bool) -> int:
    """Wait for the others at the end of a block; how many of all leave it by an error.

    One that failed waits but briefly, as the others may be anywhere.
    """
    count = torch.tensor([int(failed)])
    team.failed, team.broken = False, True
    with losses_named():
        work = dist.all_reduce(count, group=team.exits, async_op=True)
        work.wait(_PATIENCE if failed else _WAIT)
    team.failed, team.broken = int(count) == team.count, False
    return int(count)


def _part(team: _Team) -> None:
    """Close the connections: threads of theirs that outlive Python abort the process."""
    # With a message left hanging this would wait for it, and so for a process that waits for us.
    if dist.is_initialized() and not team.broken:
        dist.destroy_process_group()


def _portable(error: BaseException) -> BaseException:
    """The error, or its words where it cannot be sent."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")

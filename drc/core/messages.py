"""What several processes of a job tell each other: values, and the errors by which they end.

There is one kind of message, `exchange`, in which every process tells a value or its error; so
nobody waits for one that has failed.
"""

from __future__ import annotations

import atexit
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from drc.core.errors import RunError

T = TypeVar("T")

_WAIT = timedelta(days=7)  # the first may search, or measure, for as long as it takes
_PATIENCE = timedelta(seconds=10)

TOLD, ALONE, APART, OPEN = "told", "alone", "apart", "open"
"""What is known of an error: all have it; the others cannot be told; they may not listen; what
comes of it is decided by who catches it."""

_LOST = (
    "another process of this job was lost (killed, or out of memory?); start the same command "
    "again, with --resume where it has a run folder"
)


@dataclass
class Team:
    """The processes of the job.

    Attributes:
        group: what carries the messages; on the CPU, whatever the training uses.
        index: of this process.
        count: of all.
        leading: the first is at work on its own, and the others wait for it.
        help: whether they would help it meanwhile.
    """

    group: Any
    index: int
    count: int
    leading: bool = False
    help: bool = False


_team: Team | None = None
_interrupted = False
_left_hanging = False


def team() -> Team | None:
    """The processes of the job, once `meet` was called; None for one alone."""
    return _team


def meet() -> None:
    """Open a channel for messages between the processes that torch knows of, if there are some."""
    global _team
    if _team is None and in_a_group():
        group = dist.new_group(backend="gloo", timeout=_WAIT)
        _team = Team(group, dist.get_rank(), dist.get_world_size())
        atexit.register(_part)


def _part() -> None:
    """Close the connections: threads of theirs that outlive Python abort the process."""
    global _team
    _team = None
    # With a message left hanging this would wait for it, and so for a process that waits for us.
    if dist.is_initialized() and not _left_hanging:
        dist.destroy_process_group()


def in_a_group() -> bool:
    """Whether torch knows of other processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def size() -> int:
    """How many processes share what is being done: one, while the first is on its own."""
    return 1 if _team is None or _team.leading else _team.count


def exchange(value: T | None = None, heed: bool = True) -> list[T | None]:
    """What every process gives, in their order; a message, which all have to take part in.

    Args:
        value: picklable, with tensors on the CPU.
        heed: let a Ctrl-C that came meanwhile take its course; otherwise it waits for
            `heed_interrupt`.

    Raises:
        RunError: a process was lost.
        Exception: what one of them raised instead of taking part.
    """
    global _interrupted
    if size() == 1:
        return [value]
    found = _gather(None, value)
    for error, _ in found:
        if error is not None:
            _interrupted = False  # it ends by this error
            set_state(error, TOLD)
            raise error
    if heed:
        heed_interrupt()
    return [given for _, given in found]


def heed_interrupt() -> None:
    """Act on a Ctrl-C that came during a message."""
    global _interrupted
    if _interrupted:
        _interrupted = False
        signal.raise_signal(signal.SIGINT)


def add_up(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place; exact only where the order cannot matter."""
    if _team is not None and size() > 1:
        with _undisturbed():
            exchange(heed=False)
            with _losses_named():
                dist.all_reduce(tensor, group=_team.group)
        heed_interrupt()
    return tensor


def tell(error: BaseException) -> None:
    """Have the others raise this error too, in their next exchange, where that is possible."""
    global _left_hanging
    state = state_of(error)
    if state in (TOLD, ALONE):
        return
    try:
        _gather(_portable(error), None, _PATIENCE if state == APART else _WAIT)
    except (RunError, RuntimeError):
        _left_hanging = True
        set_state(error, ALONE)
    else:
        set_state(error, TOLD)


def state_of(error: BaseException) -> str:
    """What is known of an error, or of the one in whose place it was raised; else nothing."""
    seen: BaseException | None = error
    while seen is not None:
        if state := getattr(seen, "drc_state", ""):
            return str(state)
        seen = seen.__cause__ or seen.__context__
    return ""


def set_state(error: BaseException, state: str) -> None:
    """Note on an error what is known of it."""
    error.drc_state = state  # type: ignore[attr-defined]


def is_loss(error: BaseException) -> bool:
    """Whether torch says by this error that another process has ended.

    gloo says so by a RuntimeError with a text of its own, NCCL and the store by their own types.
    """
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("gloo" in text or "by peer" in text)


def _gather(
    error: BaseException | None, value: Any, patience: timedelta = _WAIT
) -> list[tuple[BaseException | None, Any]]:
    """The errors and values of all processes; what is None is not even sent."""
    assert _team is not None
    own = b"" if error is None and value is None else pickle.dumps((error, value))
    found: list[tuple[BaseException | None, Any]] = []
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(_team.count)]
    with _undisturbed(), _losses_named():
        length = torch.tensor([len(own)])
        dist.all_gather(lengths, length, group=_team.group, async_op=True).wait(patience)
        for index, size in enumerate(map(int, lengths)):
            data = torch.empty(size, dtype=torch.uint8)
            if index == _team.index and own:
                data = torch.frombuffer(bytearray(own), dtype=torch.uint8)
            if size:
                dist.broadcast(data, index, group=_team.group)
            found.append(pickle.loads(data.numpy().tobytes()) if size else (None, None))
    return found


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits until a message is through; half a message would put everyone out of step."""

    def remember(*_: object) -> None:
        global _interrupted
        _interrupted = True

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        yield
        return
    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _losses_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        lost = RunError(_LOST)
        set_state(lost, ALONE)
        raise lost from error


def _portable(error: BaseException) -> BaseException:
    """The error, or its words where it cannot be sent."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")


__all__ = [
    "ALONE", "APART", "OPEN", "TOLD", "add_up", "exchange", "heed_interrupt", "in_a_group",
    "is_loss", "meet", "set_state", "size", "state_of", "team", "tell",
]  # fmt: skip

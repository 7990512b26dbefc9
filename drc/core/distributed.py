"""Several processes at one job, as `torchrun` or `accelerate launch` start them.

All run the same program. In a block of `together` they end alike: what one raises, all raise. The
first process leads: it reads the data, decides and writes, and asks the others for help where work
is worth sharing. Without a launcher all of this costs nothing and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch

from drc.core.messages import (
    OPEN,
    TOLD,
    exchange,
    heed_interrupt,
    in_a_group,
    meet,
    set_state,
    size,
    state_of,
    team,
    tell,
)
from drc.core.runtime import resolve_device

T = TypeVar("T")


@contextmanager
def together(device: str | torch.device = "auto") -> Iterator[torch.device]:
    """A block that all processes run and that ends for all alike; yields this one's device.

    Args:
        device: the one asked for; several GPU processes of a machine get one GPU each.

    Raises:
        UsageError: no such device.
        RunError: another process was lost.
        Exception: what any of the processes raised inside the block.
    """
    where = own_device(device)
    if size() == 1:
        yield where
        return
    try:
        yield where
        exchange()
    except BaseException as error:
        tell(error)
        raise


def own_device(device: str | torch.device) -> torch.device:
    """Find the other processes, if a launcher started some; the device of this one.

    Raises:
        UsageError: no such device.
    """
    where = resolve_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or in_a_group():
        from drc.core.joining import join_processes  # accelerate is slow to import

        where = join_processes(where)[1]
        meet()
    return where


def is_joined() -> bool:
    """Whether this is one of several processes that have found each other."""
    return team() is not None


def is_first() -> bool:
    """True in the one process that writes and prints; the only one without a launcher."""
    found = team()
    return found is None or found.index == 0


def is_told(error: BaseException) -> bool:
    """Whether all processes end by this error, of which the first then speaks for all."""
    return state_of(error) == TOLD


def on_first(work: Callable[[], T], help: Callable[..., object] | None = None) -> T:
    """Run `work` in the first process alone and return its result, or raise its error, in all.

    Args:
        work: what the first does; its result has to be picklable, with tensors on the CPU.
        help: what the others do each time `work` calls `helped`.
    """
    found = team()
    if found is None or size() == 1:
        return work()
    if found.index:
        return _follow(help)
    found.leading, found.help = True, help is not None
    try:
        result = work()
    except BaseException as error:
        tell(error)
        raise
    finally:
        found.leading = False
    exchange(("done", result))
    return result


def helped(job: Callable[[], T], *request: object) -> T:
    """Do a job with the others' help, where the first leads and they offer any.

    Args:
        job: what the first does, which may use `exchange`, `deal` and the like.
        request: picklable; what the others' `help` gets, so that it does the same.
    """
    found = team()
    if found is None or not found.leading or not found.help:
        return job()
    found.leading = False
    try:
        exchange(("help", request))
        return job()
    except BaseException as error:
        tell(error)
        if is_told(error):
            set_state(error, OPEN)  # the others listen again
        raise
    finally:
        found.leading = True


def deal(items: Iterator[T]) -> Iterator[tuple[int, T]]:
    """Those of `items` that are this process's, with their numbers: every count-th.

    Only the first process reads them, whatever the others pass. Where it is on its own it gets all.
    """
    found = team()
    if found is None or size() == 1:
        yield from enumerate(items)
        return
    start = 0
    while True:
        hand = exchange(list(islice(items, found.count)) if is_first() else None)[0] or []
        if found.index < len(hand):
            yield start + found.index, hand[found.index]
        start += found.count
        if len(hand) < found.count:
            return


def of_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, in all that are at the job."""
    if size() == 1:
        return make()
    return exchange(make() if is_first() else None)[0]  # type: ignore[return-value]


def in_order(found: list[tuple[int, T]]) -> list[T]:
    """What all processes found for the numbers that `deal` dealt them, by number."""
    pairs = [pair for part in exchange(found) for pair in part or []]
    return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]


def _follow(help: Callable[..., object] | None) -> Any:
    """Wait for the first, and help it when it asks."""
    while True:
        message: Any = exchange(heed=False)[0]
        kind, content = message
        if kind == "done":
            heed_interrupt()
            return content
        assert help is not None  # the first knows whether there is any
        try:
            heed_interrupt()
            help(*content)
        except BaseException as error:
            tell(error)
            if not is_told(error):
                raise


__all__ = [
    "deal",
    "exchange",
    "helped",
    "in_order",
    "is_first",
    "is_joined",
    "is_told",
    "of_first",
    "on_first",
    "own_device",
    "together",
]  # fmt: skip

"""Sides of LR images that a network takes: some run on multiples of a number alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from drc.core.errors import ModelError

Size = tuple[int, int]
"""Height and width."""

Outcome = TypeVar("Outcome")

SIZES: tuple[Size, ...] = ((29, 43), (40, 70), (72, 48))
"""Heights and widths to try a network on. None fits windows: networks that pad then do so, as they
must where they are traced."""

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


def smallest_multiple(work: Callable[[Sequence[Size]], Outcome]) -> tuple[Outcome, int]:
    """Call `work` with `SIZES`, rounded up to multiples of 1, 2, 4, ... 64 until it succeeds.

    Returns:
        What it returned, and the multiple.

    Raises:
        ModelError: what `work` raised for the sizes as they are, where it succeeds on none.
    """
    failure: ModelError | None = None
    for multiple in _MULTIPLES:
        sizes = [(round_up(height, multiple), round_up(width, multiple)) for height, width in SIZES]
        try:
            return work(sizes), multiple
        except ModelError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def round_up(side: int, multiple: int) -> int:
    """The smallest multiple that is not smaller than `side`."""
    return -(-side // multiple) * multiple

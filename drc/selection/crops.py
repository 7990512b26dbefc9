"""Single crops out of the batches of a loader, and batches of them again.

These are what search and ranking look at, whatever loader they come from. Crops are cut out of
images elsewhere, in `drc.data.crops`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from drc.core.errors import DataError

Batch = tuple[Tensor, Tensor]
"""LR and HR images, `(N, C, h, w)` and `(N, C, h * scale, w * scale)`."""


def single_crops(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """The first `count` crops one by one, `(1, C, h, w)`; short data is read again.

    Raises:
        DataError: there are none.
    """
    return itertools.islice(_endless(batches), count)


def _endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        empty = True
        for lr, hr in batches:
            for i in range(len(lr)):
                empty = False
                yield lr[i : i + 1], hr[i : i + 1]
        if empty:
            raise DataError("the loader gives no batches; calibration needs images")


def join(crops: Sequence[Batch]) -> Batch:
    """One batch of single crops.

    Raises:
        DataError: the crops differ in size.
    """
    sizes = {tuple(lr.shape[-2:]) for lr, _ in crops}
    if len(sizes) > 1:
        (h, w), (height, width), *_ = sorted(sizes)
        raise DataError(
            f"the calibration crops differ in size ({h}x{w} and {height}x{width}), and this method "
            "takes them in batches; pass crops of one size"
        )
    return torch.cat([lr for lr, _ in crops]), torch.cat([hr for _, hr in crops])


def in_turn(crops: Sequence[Batch], size: int) -> Iterator[Batch]:
    """Endlessly, batches of up to `size` crops, in the order given."""
    starts = range(0, len(crops), size)
    return itertools.cycle([join(crops[start : start + size]) for start in starts])


def drawn(crops: Sequence[Batch], size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Endlessly, batches of `size` crops, or of all where there are fewer.

    Each round draws a new order; crops that fill no batch wait for the next round.
    """
    size = min(size, len(crops))
    while True:
        order = torch.randperm(len(crops), generator=generator).tolist()
        for start in range(0, len(crops) - size + 1, size):
            yield join([crops[place] for place in order[start : start + size]])

"""Geometric self-ensemble: the mean over the eight views of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import product

import torch
from torch import Tensor


def self_ensemble(run: Callable[[Tensor], Tensor], lr: Tensor) -> Tensor:
    """Run all flips and quarter turns of an image, turn the SR images back, and average them.

    Eight times the work; trained networks, whose weights prefer directions, gain a little.

    Args:
        run: maps `(N, C, h, w)` to SR images, h and w in either order.
        lr: `(N, C, h, w)`.

    Returns:
        The mean, in the shape of `run(lr)`.
    """

    def views() -> Iterator[Tensor]:
        for transposed, flips in product((False, True), ((), (-1,), (-2,), (-1, -2))):
            view = (lr.transpose(-1, -2) if transposed else lr).flip(flips)
            sr = run(view).flip(flips)
            yield sr.transpose(-1, -2) if transposed else sr

    return reduce(torch.add, views()) / 8  # one by one: eight SR images may not fit into memory


__all__ = ["self_ensemble"]

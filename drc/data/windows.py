"""Pieces of images: square windows, the same of a shrunk image, and the eight views of a crop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor


def window(image: Tensor, top: int, left: int, size: int) -> Tensor:
    """The square of `image`, `(..., H, W)`, whose first row and column are `top` and `left`."""
    return image[..., top : top + size, left : left + size]


def span(start: int, size: int, margin: int, end: int) -> tuple[int, int]:
    """Where `start`..`start + size` with a margin to both sides begins and ends within 0..`end`."""
    return max(start - margin, 0), min(start + size + margin, end)


def shrink_window(
    shrink: Callable[[Tensor], Tensor],
    hr: Tensor,
    scale: int,
    top: int,
    left: int,
    patch: int,
    margin: int,
) -> Tensor:
    """A square window of `shrink(hr)`, without the work outside it.

    What lies around the window is shrunk along, so its borders are those of the whole image
    shrunk: pixels are made up only where the image itself ends.

    Args:
        shrink: maps `(..., H, W)` to `(..., H / scale, W / scale)`.
        hr: `(..., H, W)`, sides multiples of `scale`.
        scale: HR side over LR side.
        top, left: first row and column of the window, in LR pixels.
        patch: side of the window, in LR pixels.
        margin: LR pixels around the window whose HR pixels reach into it.

    Returns:
        `(..., patch, patch)`.
    """
    for dim, start in ((-2, top), (-1, left)):
        first, last = span(start, patch, margin, hr.shape[dim] // scale)
        hr = hr.narrow(dim, first * scale, (last - first) * scale)
    return window(shrink(hr), min(top, margin), min(left, margin), patch)


def random_view(rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """One of the eight views of a square, drawn evenly: flips, then perhaps a transposition.

    Returns:
        A function of `(C, p, p)` that gives `(C, p, p)`, contiguous.
    """
    flips = [dim for dim in (1, 2) if rng.random() < 0.5]
    transposed = rng.random() < 0.5

    def view(crop: Tensor) -> Tensor:
        crop = crop.flip(flips)
        return (crop.transpose(1, 2) if transposed else crop).contiguous()

    return view


__all__ = ["random_view", "shrink_window", "span", "window"]

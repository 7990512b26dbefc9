"""Decoded levels of 8 or 16 bits, as arrays `(H, W, C)`: turned upright, rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.unsignedinteger[Any]]
"""8 or 16 bits, full range."""

_PER_LEVEL = 257  # 65535 / 255: 16-bit values per 8-bit level


def to_8bit(levels: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
    """8-bit levels as they are, 16-bit ones divided by 257 and rounded."""
    if levels.dtype == np.uint8:
        return levels.astype(np.uint8, copy=False)
    return ((levels.astype(np.uint32) + _PER_LEVEL // 2) // _PER_LEVEL).astype(np.uint8)


def upright(levels: Levels, orientation: Any) -> Levels:
    """Apply an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        levels = levels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        levels = levels[::-1]
    return levels


def with_transparent(levels: Levels, colour: int | Sequence[int]) -> Levels:
    """Grey or RGB with alpha: nothing where a pixel has the colour, and full elsewhere."""
    full = np.iinfo(levels.dtype).max
    alpha = np.where((levels == np.asarray(colour)).all(axis=2, keepdims=True), 0, full)
    return np.concatenate([levels, alpha.astype(levels.dtype)], axis=2)


__all__ = ["Levels", "to_8bit", "upright", "with_transparent"]

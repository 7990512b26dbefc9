"""Colour as SR counts it: the luma of RGB images, and back."""

from __future__ import annotations

import torch
from torch import Tensor

# MATLAB's rgb2ycbcr: full-range RGB to luma in 16..235.
_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_BLACK = 16 / 255


def luma(images: Tensor, white: float) -> Tensor:
    """The Y channel of MATLAB's YCbCr, not rounded.

    Args:
        images: `(..., 3, H, W)`, floating-point RGB in 0..`white`.
        white: the largest value.

    Returns:
        `(..., 1, H, W)`, of the same type, from 16/255 to 235/255 of `white`.
    """
    weights = torch.tensor(_WEIGHTS, dtype=images.dtype, device=images.device)
    return torch.einsum("...chw,c->...hw", images, weights).unsqueeze(-3) + _BLACK * white


def from_luma(y: Tensor) -> Tensor:
    """The grey whose luma in 16/255..235/255 `y` is: full range, 0..1 and not clamped."""
    return (y - _BLACK) / sum(_WEIGHTS)


__all__ = ["from_luma", "luma"]

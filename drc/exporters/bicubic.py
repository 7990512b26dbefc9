"""Bicubic enlargement by a whole number, in ops that every runtime reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_A = -0.75
"""The coefficient of torch's bicubic kernel, and of ONNX's."""

_REACH = 2
"""An SR pixel depends on LR pixels up to this many away from the one that it lies in."""


def enlarge(image: Tensor, factor: int) -> Tensor:
    """`F.interpolate(image, scale_factor=factor, mode="bicubic")`, but for rounding.

    Every SR pixel within an LR pixel has one filter wherever that lies, so that a convolution and
    a pixel shuffle do it.

    Args:
        image: `(N, C, h, w)`, of any range.
        factor: at least 1.

    Returns:
        `(N, C, h * factor, w * factor)`.
    """
    channels = int(image.shape[1])
    line = torch.tensor(_weights(factor), dtype=image.dtype, device=image.device)
    kernels = torch.einsum("pi,qj->pqij", line, line).flatten(0, 1)[:, None]
    made = F.conv2d(_extended(image), kernels.repeat(channels, 1, 1, 1), groups=channels)
    return F.pixel_shuffle(made, factor)


def _extended(image: Tensor) -> Tensor:
    """The image with its edge pixels repeated outwards: padding, which traces as twelve ops."""
    rows = [image[:, :, :1]] * _REACH + [image] + [image[:, :, -1:]] * _REACH
    tall = torch.cat(rows, 2)
    return torch.cat([tall[..., :1]] * _REACH + [tall] + [tall[..., -1:]] * _REACH, 3)


def _weights(factor: int) -> list[list[float]]:
    """Of the `factor` SR pixels in an LR pixel, the weights of the five LR pixels around it."""
    centres = [(number + 0.5) / factor - 0.5 for number in range(factor)]
    return [
        [_kernel(abs(centre - offset)) for offset in range(-_REACH, _REACH + 1)]
        for centre in centres
    ]


def _kernel(distance: float) -> float:
    if distance < 1:
        return (_A + 2) * distance**3 - (_A + 3) * distance**2 + 1
    if distance < 2:
        return _A * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return 0.0


__all__ = ["enlarge"]

"""PSNR and SSIM as SR papers report them: luma of 8-bit images, `border` pixels cut off."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drc.core.errors import DataError
from drc.data import matlab

Plane = npt.NDArray[np.float64]

_WHITE = 255.0
_SSIM_SIGMA = 1.5
_SSIM_WINDOW = 11


def luma(image: Tensor) -> Plane:
    """What of an image is compared: the luma of RGB, not rounded, or its one channel as it is.

    Args:
        image: `(3, H, W)` or `(1, H, W)`, uint8.

    Returns:
        `(H, W)`, float64; luma lies in 16..235.
    """
    levels = image.double()
    y = levels if image.shape[0] == 1 else matlab.luma(levels, _WHITE)
    return y[0].cpu().numpy()


def psnr(ours: Plane, truth: Plane) -> float:
    """Peak signal-to-noise ratio in dB of two `(H, W)` planes in 0..255; infinite if equal."""
    error = float(np.mean((ours - truth) ** 2))
    return math.inf if error == 0 else 10 * math.log10(_WHITE**2 / error)


def ssim(ours: Plane, truth: Plane) -> float:
    """Mean structural similarity of two `(H, W)` planes in 0..255, sides of at least 11.

    An 11x11 Gaussian of sigma 1.5; only windows wholly inside the planes count.
    """
    from skimage.metrics import structural_similarity  # slow to import

    value = structural_similarity(
        ours,
        truth,
        data_range=_WHITE,
        gaussian_weights=True,
        sigma=_SSIM_SIGMA,
        use_sample_covariance=False,
    )
    return float(value)


def psnr_y(sr: Tensor, hr: Tensor, border: int) -> float:
    """PSNR of the luma in dB; infinite for equal images.

    Args:
        sr, hr: `(3, H, W)`, RGB, or `(1, H, W)`; uint8, of one size.
        border: pixels to leave out on each side, by custom the scale.

    Raises:
        DataError: the images differ in shape or type, or nothing is left inside the border.
    """
    return psnr(*_inner_luma(sr, hr, border, smallest=1))


def ssim_y(sr: Tensor, hr: Tensor, border: int) -> float:
    """SSIM of the luma, at most 1. Arguments as for `psnr_y`.

    Raises:
        DataError: the images differ in shape or type, or are under 11 pixels inside the border.
    """
    return ssim(*_inner_luma(sr, hr, border, smallest=_SSIM_WINDOW))


def _inner_luma(sr: Tensor, hr: Tensor, border: int, smallest: int) -> tuple[Plane, Plane]:
    for image in (sr, hr):
        if image.ndim != 3 or image.shape[0] not in (1, 3) or image.dtype != torch.uint8:
            raise DataError(
                "images to compare are (3, H, W) or (1, H, W) uint8, not "
                f"{tuple(image.shape)} {image.dtype}"
            )
    if sr.shape != hr.shape:
        raise DataError(f"cannot compare images of {tuple(sr.shape)} and {tuple(hr.shape)}")
    height, width = hr.shape[-2:]
    if min(height, width) - 2 * border < smallest:
        raise DataError(
            f"a {height}x{width} image is too small to measure inside a border of {border}; "
            f"use one of at least {smallest + 2 * border} pixels a side"
        )
    inside = (..., slice(border, height - border), slice(border, width - border))
    return luma(sr[inside]), luma(hr[inside])

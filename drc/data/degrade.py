"""LR images as blind SR sees them: blurred by a random kernel, then shrunk.

HR and LR stay aligned: LR pixel (i, j) covers the HR pixels s*i..s*i+s-1 and s*j..s*j+s-1, where s
is the scale, as in plain bicubic LR images. The kernels are odd and centred, and the downsampling
weighs HR pixels evenly to both sides of that block, so nothing is shifted by a part of a pixel.
(DIV2KRK's own LR images take every s-th pixel, with kernels shifted to make up for it.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from drc.data.kernels import random_anisotropic, random_isotropic
from drc.data.matlab import REACH, downscale, round8
from drc.errors import DataError, UsageError

Kind = Literal["iso", "aniso"]

_JITTER = 0.25

# Kind and scale -> kernel side, lowest and highest sigma: settings 1 and 2 of the blind SR papers.
_SETTINGS: dict[tuple[str, int], tuple[int, float, float]] = {
    ("iso", 2): (21, 0.2, 2.0),
    ("iso", 3): (21, 0.2, 3.0),
    ("iso", 4): (21, 0.2, 4.0),
    ("aniso", 2): (11, 0.6, 5.0),
    ("aniso", 4): (31, 0.6, 5.0),
}


@dataclass(frozen=True)
class Degradation:
    """One of the published settings: how kernels are drawn, and what is done with them.

    Attributes:
        kind: `iso`, round Gaussians (setting 1), or `aniso`, elongated and uneven ones (setting 2).
        scale: HR side over LR side.
        noise: standard deviation of Gaussian noise on the LR image, in 8-bit levels.

    Raises:
        UsageError: no setting of that kind at that scale, or a noise outside 0..255.
    """

    kind: Kind
    scale: int
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"a degradation is iso or aniso, not {self.kind!r}")
        if (self.kind, self.scale) not in _SETTINGS:
            scales = " and ".join(f"x{scale}" for kind, scale in _SETTINGS if kind == self.kind)
            raise UsageError(
                f"the degradation {self.kind} has kernels for {scales}, not for x{self.scale}"
            )
        if not 0 <= self.noise <= 255:
            raise UsageError(f"noise is in 8-bit levels, 0 to 255, not {self.noise}")

    @property
    def kernel_size(self) -> int:
        """Side of the kernels in HR pixels."""
        return _SETTINGS[self.kind, self.scale][0]

    def in_words(self) -> str:
        """What happens to the images, for a report."""
        shape = {"iso": "isotropic", "aniso": "anisotropic"}[self.kind]
        noise = f", noise of {self.noise:g} levels" if self.noise else ""
        side = self.kernel_size
        return f"blurred by random {shape} {side}x{side} kernels{noise}"

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw a kernel: `(kernel_size, kernel_size)`, float64, sum 1. One generator state, one
        kernel."""
        setting = _SETTINGS[self.kind, self.scale]
        if self.kind == "iso":
            return random_isotropic(*setting, generator)
        return random_anisotropic(*setting, _JITTER, generator)

    def apply(
        self,
        hr: Tensor,
        kernel: Tensor,
        *,
        generator: torch.Generator | None = None,
        value_range: float = 1.0,
        rounded: bool = True,
    ) -> Tensor:
        """Blur with `kernel`, shrink by MATLAB's bicubic filter, add the noise, round.

        Args:
            hr: `(N, C, H, W)`, floating point, 0..`value_range`; H and W multiples of the scale.
            kernel: `(k, k)`, odd, for all N images.
            generator: draws the noise, on the CPU; needed with noise alone.
            value_range: the value of white, 1.0 or 255.0.
            rounded: to the 256 levels of an 8-bit image; otherwise the values stay as they come,
                a little outside of the range at sharp edges.

        Returns:
            `(N, C, H / scale, W / scale)`.

        Raises:
            DataError: an image too small for the kernel, or no multiple of the scale.
            UsageError: noise without a generator.
        """
        levels = blur(hr * (255.0 / value_range), kernel)
        lr = downscale(levels, self.scale, rounded=False)
        if self.noise:
            if generator is None:
                raise UsageError("noise needs a generator to be drawn from; pass generator=")
            drawn = torch.randn(lr.shape, dtype=lr.dtype, generator=generator).to(lr.device)
            lr = lr + drawn * self.noise
        return (round8(lr) if rounded else lr) * (value_range / 255.0)

    def apply_window(
        self,
        hr: Tensor,
        kernel: Tensor,
        top: int,
        left: int,
        patch: int,
        *,
        generator: torch.Generator | None = None,
        value_range: float = 1.0,
    ) -> Tensor:
        """A square window of `apply` on whole images, without the work outside it.

        What lies around the window is blurred along, so its borders are those of the whole image
        shrunk: real pixels are reflected only where the image ends.

        Args:
            hr: `(N, C, H, W)`, as for `apply`, or uint8 with a `value_range` of 255.
            kernel: `(k, k)`, odd.
            top, left: first row and column of the window, in LR pixels.
            patch: side of the window, in LR pixels.
            generator, value_range: as for `apply`.

        Returns:
            `(N, C, patch, patch)`, rounded to 8-bit levels.
        """
        margin = math.ceil(kernel.shape[-1] // 2 / self.scale) + REACH
        for dim, start in ((-2, top), (-1, left)):
            first = max(start - margin, 0)
            last = min(start + patch + margin, hr.shape[dim] // self.scale)
            hr = hr.narrow(dim, first * self.scale, (last - first) * self.scale)
        lr = self.apply(hr, kernel, generator=generator, value_range=value_range)
        top, left = min(top, margin), min(left, margin)
        return lr[..., top : top + patch, left : left + patch]


def blur(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolve every channel with one kernel; borders are reflected without repeating the edge.

    Args:
        images: `(N, C, H, W)`, floating point, any range.
        kernel: `(k, k)`, k odd.

    Returns:
        The shape and type of `images`.

    Raises:
        UsageError: the kernel is not square and odd.
        DataError: an image has no more pixels to a side than the kernel reaches.
    """
    size = kernel.shape[-1]
    if kernel.shape != (size, size) or size % 2 == 0:
        raise UsageError(f"a blur kernel is square and odd, not {tuple(kernel.shape)}")
    batch, channels, height, width = images.shape
    reach = size // 2
    if min(height, width) <= reach:
        raise DataError(
            f"a {height}x{width} image is too small for a {size}x{size} blur kernel; "
            f"use one of at least {reach + 1} pixels a side"
        )
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    weight = kernel.flip(0, 1).to(images)[None, None]  # conv2d is a correlation
    blurred = F.conv2d(padded.reshape(batch * channels, 1, *padded.shape[-2:]), weight)
    return blurred.reshape(images.shape)


__all__ = ["Degradation", "Kind", "blur"]

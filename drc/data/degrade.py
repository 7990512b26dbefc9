"""LR images as blind SR sees them: blurred by a kernel, then shrunk.

With the random kernels of `iso` and `aniso`, HR and LR stay aligned: LR pixel (i, j) covers the HR
pixels s*i..s*i+s-1 and s*j..s*j+s-1, where s is the scale, as in plain bicubic LR images. The
kernels are odd and centred, and the downsampling weighs HR pixels evenly to both sides of that
block, so nothing is shifted by a part of a pixel. (DIV2KRK's own LR images take every s-th pixel,
with kernels shifted to make up for it.) `nearest` and `blur` keep one pixel of each block, and at
even scales they shift by half an HR pixel, which is a part of those degradations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

from drc.core.errors import DataError, UsageError
from drc.data.matlab import REACH, downscale, nearest, round8, shrink_window

Kind = Literal["iso", "aniso", "nearest", "blur"]
Borders = Literal["reflect", "replicate"]

_JITTER = 0.25

# Kind and scale -> kernel side, lowest and highest sigma: settings 1 and 2 of the blind SR papers.
_RANDOM: dict[tuple[str, int], tuple[int, float, float]] = {
    ("iso", 2): (21, 0.2, 2.0),
    ("iso", 3): (21, 0.2, 3.0),
    ("iso", 4): (21, 0.2, 4.0),
    ("aniso", 2): (11, 0.6, 5.0),
    ("aniso", 4): (31, 0.6, 5.0),
}
_SUBSAMPLES = ("nearest", "blur")
_FIXED_SCALES = range(2, 9)


@dataclass(frozen=True)
class Degradation:
    """One of the published settings: how kernels are drawn, and what is done with them.

    Attributes:
        kind: `iso`, round Gaussians (setting 1), or `aniso`, elongated and uneven ones (setting 2),
            shrunk by the bicubic filter, at the scales of their papers. `nearest`: no blur, and
            the subsampling of MATLAB's method "nearest". `blur`: the setting BD of RDN and RCAN,
            one 7x7 Gaussian of sigma 1.6, then that subsampling. (They publish it for x3 alone.)
            Both at x2 to x8.
        scale: HR side over LR side.
        noise: standard deviation of Gaussian noise on the LR image, in 8-bit levels.
        sigma: of `blur`, in HR pixels, above 0; its kernel reaches to two of them.

    Raises:
        UsageError: no setting of that kind at that scale, or a number out of its range.
    """

    kind: Kind
    scale: int
    noise: float = 0.0
    sigma: float = 1.6

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            *kinds, last = get_args(Kind)
            raise UsageError(f"a degradation is {', '.join(kinds)} or {last}, not {self.kind!r}")
        if self.subsamples and self.scale not in _FIXED_SCALES:
            raise UsageError(f"the degradation {self.kind} is for x2 to x8, not for x{self.scale}")
        if not self.subsamples and (self.kind, self.scale) not in _RANDOM:
            scales = " and ".join(f"x{scale}" for kind, scale in _RANDOM if kind == self.kind)
            raise UsageError(
                f"the degradation {self.kind} has kernels for {scales}, not for x{self.scale}"
            )
        if not 0 <= self.noise <= 255:
            raise UsageError(f"noise is in 8-bit levels, 0 to 255, not {self.noise}")
        if not 0 < self.sigma < math.inf:
            raise UsageError(f"the sigma of a blur is above 0, not {self.sigma}")

    @property
    def subsamples(self) -> bool:
        """Whether LR keeps one pixel of each block, rather than shrinking by the bicubic filter."""
        return self.kind in _SUBSAMPLES

    @property
    def kernel_size(self) -> int:
        """Side of the kernels in HR pixels; 1 where nothing is blurred."""
        if self.kind == "blur":
            return max(3, 2 * math.ceil(2 * self.sigma) - 1)
        return 1 if self.subsamples else _RANDOM[self.kind, self.scale][0]

    def in_words(self) -> str:
        """What happens to the images, for a report."""
        noise = f", noise of {self.noise:g} levels" if self.noise else ""
        side = self.kernel_size
        if self.kind == "nearest":
            return f"subsampled without blur{noise}"
        if self.kind == "blur":
            return (
                f"blurred by a {side}x{side} Gaussian kernel of sigma {self.sigma:g} and subsampled"
                f"{noise}"
            )
        shape = {"iso": "isotropic", "aniso": "anisotropic"}[self.kind]
        return f"blurred by random {shape} {side}x{side} kernels{noise}"

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw a kernel: `(kernel_size, kernel_size)`, float64, sum 1. One generator state, one
        kernel; `nearest` and `blur` have one kernel and draw nothing."""
        if self.subsamples:
            return gaussian_kernel(self.kernel_size, (self.sigma, self.sigma))
        setting = _RANDOM[self.kind, self.scale]
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
        """Blur with `kernel`, shrink as the kind says, add the noise, round.

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
        levels = hr * (255.0 / value_range)
        if self.subsamples:
            lr = nearest(blur(levels, kernel, "replicate"), self.scale)
        else:
            lr = downscale(blur(levels, kernel), self.scale, rounded=False)
        if self.noise:
            if generator is None:
                raise UsageError("noise needs a generator to be drawn from; pass generator=")
            drawn = torch.randn(lr.shape, dtype=lr.dtype, generator=generator).to(lr.device)
            lr = lr + drawn * self.noise
        return (round8(lr) if rounded else lr) * (value_range / 255.0)

    def degrade(self, hr: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Draw a kernel and noise by `seed` alone, and apply them to one image.

        Args:
            hr: `(3, H, W)`, uint8; H and W multiples of the scale.
            seed: 0 or more.

        Returns:
            The kernel, as `sample` gives it, and the LR image, `(3, H / scale, W / scale)`, uint8.

        Raises:
            DataError: as `apply`.
        """
        generator = torch.Generator().manual_seed(seed)
        kernel = self.sample(generator)
        lr = self.apply(hr[None].float(), kernel, generator=generator, value_range=255.0)
        return kernel, lr[0].to(hr.dtype)

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

        Args:
            hr: `(N, C, H, W)`, as for `apply`, or uint8 with a `value_range` of 255.
            kernel: `(k, k)`, odd.
            top, left: first row and column of the window, in LR pixels.
            patch: side of the window, in LR pixels.
            generator, value_range: as for `apply`.

        Returns:
            `(N, C, patch, patch)`, rounded to 8-bit levels.
        """
        shrink = partial(self.apply, kernel=kernel, generator=generator, value_range=value_range)
        reach = math.ceil(kernel.shape[-1] // 2 / self.scale) + (0 if self.subsamples else REACH)
        return shrink_window(shrink, hr, self.scale, top, left, patch, reach)


def blur(images: Tensor, kernel: Tensor, borders: Borders = "reflect") -> Tensor:
    """Convolve every channel with one kernel.

    The convolution is a product of Fourier transforms: some twenty times as fast as sums for the
    kernels of blind SR, and within 1e-3 of an 8-bit level of them.

    Args:
        images: `(N, C, H, W)`, float32 or float64, any range.
        kernel: `(k, k)`, k odd.
        borders: what lies beyond them: the image reflected without repeating the edge, or the edge
            repeated.

    Returns:
        The shape and type of `images`; `images` itself for a kernel of one pixel.

    Raises:
        UsageError: the kernel is not square and odd.
        DataError: an image to reflect has no more pixels to a side than the kernel reaches.
    """
    size = kernel.shape[-1]
    if kernel.shape != (size, size) or size % 2 == 0:
        raise UsageError(f"a blur kernel is square and odd, not {tuple(kernel.shape)}")
    if size == 1:
        return images
    height, width = images.shape[-2:]
    reach = size // 2
    if borders == "reflect" and min(height, width) <= reach:
        raise DataError(
            f"a {height}x{width} image is too small for a {size}x{size} blur kernel; "
            f"use one of at least {reach + 1} pixels a side"
        )
    padded = F.pad(images, (reach, reach, reach, reach), mode=borders)
    # Lengths without large prime factors; what wraps around falls into the part cut off.
    sides = [next_fast_len(side, real=True) for side in padded.shape[-2:]]
    product = torch.fft.rfft2(padded, s=sides) * torch.fft.rfft2(kernel.to(padded), s=sides)
    blurred = torch.fft.irfft2(product, s=sides)
    return blurred[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def gaussian_kernel(size: int, sigmas: tuple[float, float], angle: float = 0.0) -> Tensor:
    """A centred Gaussian with two axes.

    Args:
        size: side in pixels, odd, so that the middle of the kernel is a pixel.
        sigmas: standard deviations along the first and the second axis, in pixels, above 0.
        angle: from the row direction (to the right) to the first axis, towards the column
            direction (down), in radians.

    Returns:
        `(size, size)`, float64, sum 1.

    Raises:
        UsageError: an even size, or a standard deviation that is not above 0.
    """
    if size < 1 or size % 2 == 0:
        raise UsageError(f"a blur kernel has an odd side, not {size}")
    if not all(math.isfinite(sigma) and sigma > 0 for sigma in sigmas):
        raise UsageError(f"the sigmas of a blur kernel are above 0, not {sigmas}")
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = offsets[:, None], offsets[None, :]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    kernel = torch.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2))
    return kernel / kernel.sum()


def random_isotropic(size: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """A round Gaussian, sigma uniform in `low`..`high`. Returns as `gaussian_kernel`."""
    sigma = _uniform(low, high, generator)
    return gaussian_kernel(size, (sigma, sigma))


def random_anisotropic(
    size: int, low: float, high: float, jitter: float, generator: torch.Generator
) -> Tensor:
    """An elongated Gaussian in a random direction, uneven as real kernels are.

    Args:
        size: side in pixels, odd.
        low, high: each axis has a sigma uniform in this range; the angle is uniform in -pi..pi.
        jitter: each entry is multiplied by 1 + U(0, jitter) of its own before normalising.
        generator: of all random numbers, on the CPU.

    Returns:
        `(size, size)`, float64, sum 1.
    """
    sigmas = _uniform(low, high, generator), _uniform(low, high, generator)
    kernel = gaussian_kernel(size, sigmas, _uniform(-math.pi, math.pi, generator))
    noise = torch.rand(size, size, dtype=torch.float64, generator=generator)
    kernel = kernel * (1 + jitter * noise)
    return kernel / kernel.sum()


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    drawn = torch.rand((), dtype=torch.float64, generator=generator).item()
    return low + (high - low) * drawn

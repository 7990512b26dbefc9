"""Gaussian blur kernels, and the random ones on which blind SR is trained and tested."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from drc.core.errors import UsageError


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


__all__ = ["gaussian_kernel", "random_anisotropic", "random_isotropic"]

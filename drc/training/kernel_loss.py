"""The loss of a blur kernel estimator such as DCLS's (Luo et al., CVPR 2022, section 3.2).

The blur happened at HR size, before downsampling; what the estimator is to give is the kernel at
LR size that has the same effect after it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from drc.core.errors import DataError, UsageError

_FLOOR = 1e-20
"""Keeps the division finite where the image has nothing at a frequency."""

_LARGEST = 41
"""The entry, by size, that sets how much is taken for noise: a Gaussian covers about as many."""

_SHARE = 0.75


@torch.no_grad()
def kernel_target(clean_lr: Tensor, blurred_lr: Tensor, size: int) -> Tensor:
    """The LR kernel that turns the clean image into the blurred one.

    Per channel `conj(X) B / (|X|^2 + 1e-20)` in the Fourier domain, centred and cut to `size`;
    the channels' mean where their product is positive, else zero; entries lowered by 0.75 times
    the 41st largest, clipped to 0..1, and normalised. It is as good as the patch: what the border
    hides, and what has no detail for a blur to show on, leaves traces in it.

    Args:
        clean_lr: X, the HR image downsampled, `(N, C, H, W)`.
        blurred_lr: B, the HR image blurred and downsampled, in the same range.
        size: side of the kernel, odd, at least 7.

    Returns:
        `(N, 1, size, size)`, float32, not negative, each of sum 1.

    Raises:
        UsageError: an even or too small `size`.
        DataError: the images differ in shape, or are smaller than the kernel.
    """
    _check(clean_lr, blurred_lr, size)
    # In double precision, for frequencies that an image lacks are divided by next to nothing.
    clean, blurred = torch.fft.rfft2(clean_lr.double()), torch.fft.rfft2(blurred_lr.double())
    power = clean.real.square() + clean.imag.square()
    answer = torch.fft.irfft2(clean.conj() * blurred / (power + _FLOOR), s=clean_lr.shape[-2:])
    middle = size // 2
    centred = answer.roll((middle, middle), (-2, -1))[..., :size, :size]
    kernel = centred.mean(1, keepdim=True) * (centred.prod(1, keepdim=True) > 0)
    noise = _SHARE * kernel.flatten(1).topk(_LARGEST).values[:, -1]
    kernel = (kernel - noise.view(-1, 1, 1, 1)).clamp(0, 1)
    kernel[..., middle, middle] += _FLOOR
    return (kernel / kernel.sum((2, 3), keepdim=True)).float()


def _check(clean_lr: Tensor, blurred_lr: Tensor, size: int) -> None:
    if size % 2 == 0 or size**2 < _LARGEST:
        raise UsageError(f"the size of a kernel must be odd and at least 7, not {size}")
    if clean_lr.shape != blurred_lr.shape:
        shapes = " and ".join("x".join(map(str, x.shape)) for x in (clean_lr, blurred_lr))
        raise DataError(f"the clean and the blurred image batch differ in shape: {shapes}")
    height, width = clean_lr.shape[-2:]
    if min(height, width) < size:
        raise DataError(
            f"a {height}x{width} LR image does not show a {size}x{size} kernel; "
            "train on larger patches"
        )


def kernel_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of an estimated kernel, a scalar; both are `(N, 1, k, k)`."""
    return F.l1_loss(estimate.float(), target)

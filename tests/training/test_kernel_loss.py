"""The LR kernel that a blur at HR size amounts to, and the loss of an estimated one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from drc.core.errors import DataError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.degrade import blur, gaussian_kernel
from drc.data.images import read_image, to_unit
from drc.data.matlab import downscale
from drc.training.kernel_loss import kernel_loss, kernel_target


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Two patches of real photos, `(2, 3, 256, 256)` in 0..1."""
    images = [to_unit(read_image(pair.hr)) for pair in bundled_pairs()[:3:2]]
    return torch.stack([image[:, 100:356, 100:356] for image in images])


def blur_round(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolution in which the image continues on its other side, as the Fourier domain has it."""
    half = kernel.shape[-1] // 2
    return blur(F.pad(images, (half,) * 4, mode="circular"), kernel)[..., half:-half, half:-half]


@pytest.mark.parametrize("size", [11, 21, 31])
def test_no_blur_is_a_single_one_in_the_middle(photos: Tensor, size: int) -> None:
    expected = torch.zeros(2, 1, size, size)
    expected[..., size // 2, size // 2] = 1
    images = photos[..., :64, :62]
    assert torch.allclose(kernel_target(images, images, size), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("sigmas", "angle", "shift"),
    [((1.2, 1.2), 0.0, (0, 0)), ((0.8, 1.6), 0.5, (0, 0)), ((1.0, 1.5), 1.0, (-2, 1))],
)
def test_a_blur_is_found_again(
    photos: Tensor, sigmas: tuple[float, float], angle: float, shift: tuple[int, int]
) -> None:
    kernel = gaussian_kernel(21, sigmas, angle).roll(shift, (0, 1))
    found = kernel_target(photos, blur_round(photos, kernel), 21)
    assert (found - kernel).abs().max() < 0.1 * kernel.max()
    assert found.flatten(1).argmax(1).tolist() == [int(kernel.argmax())] * 2


def test_a_blur_of_hr_images_shows_at_lr_size(photos: Tensor) -> None:
    clean = downscale(photos, 4, 1.0, rounded=False)
    peaks = []
    for sigma in (1.0, 2.0, 3.0, 4.0):  # borders are mirrored, so the target is no clean Gaussian
        blurred = downscale(
            blur(photos, gaussian_kernel(31, (sigma, sigma))), 4, 1.0, rounded=False
        )
        kernel = kernel_target(clean, blurred, 21)
        assert kernel.flatten(1).argmax(1).tolist() == [220, 220]
        peaks.append(kernel.amax((1, 2, 3)))
    assert all(bool((wide < narrow).all()) for narrow, wide in pairwise(peaks))


def test_kernels_are_not_negative_and_sum_to_one(photos: Tensor) -> None:
    noise = 0.05 * torch.randn(photos.shape, generator=torch.Generator().manual_seed(0))
    for blurred in (photos + noise, blur(photos, gaussian_kernel(21, (3.0, 1.0))), photos.flip(0)):
        kernel = kernel_target(photos[..., :63, :64], blurred[..., :63, :64], 21)
        assert kernel.shape == (2, 1, 21, 21) and kernel.dtype == torch.float32
        assert bool((kernel >= 0).all())
        assert torch.allclose(kernel.sum((1, 2, 3)), torch.ones(2))


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0, 255.0])
def test_flat_images_give_some_kernel(level: float) -> None:
    flat = torch.full((1, 3, 40, 37), level)
    kernel = kernel_target(flat, flat, 31)
    assert bool(kernel.isfinite().all()) and bool((kernel >= 0).all())
    assert float(kernel.sum()) == pytest.approx(1)


def test_an_image_does_not_change_its_neighbour_in_the_batch(photos: Tensor) -> None:
    blurred = blur(photos, gaussian_kernel(21, (1.0, 2.0)))
    together = kernel_target(photos, blurred, 21)
    alone = [kernel_target(x[None], y[None], 21) for x, y in zip(photos, blurred, strict=True)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-7)


def test_the_loss_is_the_mean_absolute_error_and_trains_the_estimate() -> None:
    target = gaussian_kernel(11, (1.0, 1.0))[None, None].float()
    estimate = (target + 0.01).half().requires_grad_()
    loss = kernel_loss(estimate, target)
    assert loss.item() == pytest.approx(0.01, rel=1e-2)
    loss.backward()
    assert estimate.grad is not None and bool((estimate.grad > 0).all())


def test_the_target_carries_no_gradient() -> None:
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    assert not kernel_target(images, images, 11).requires_grad


@pytest.mark.parametrize("size", [5, 12])
def test_other_kernel_sizes_are_refused(size: int) -> None:
    images = torch.rand(1, 3, 16, 16)
    with pytest.raises(UsageError, match=f"must be odd and at least 7, not {size}"):
        kernel_target(images, images, size)


def test_images_that_do_not_fit_are_refused() -> None:
    images = torch.rand(1, 3, 16, 20)
    with pytest.raises(DataError, match="a 16x20 LR image does not show a 21x21 kernel; train on"):
        kernel_target(images, images, 21)
    with pytest.raises(DataError, match="differ in shape: 1x3x16x20 and 1x3x16x16"):
        kernel_target(images, images[..., :16], 11)

"""PSNR and SSIM: by hand, against an independent implementation, and as published for bicubic."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from drc.core.errors import DataError
from drc.data.folders import find_pairs, load_pair
from drc.data.images import read_image, to_uint8
from drc.data.matlab import upscale
from drc.evaluation.image import luma, psnr, psnr_y, ssim, ssim_y


def noisy(image: Tensor, amount: int) -> Tensor:
    noise = torch.randint(-amount, amount + 1, image.shape)
    return (image.int() + noise).clamp(0, 255).to(torch.uint8)


def photo(height: int = 60, width: int = 50) -> Tensor:
    smooth = F.interpolate(torch.rand(1, 3, 8, 8) * 255, size=(height, width), mode="bicubic")
    return smooth[0].clamp(0, 255).to(torch.uint8)


def test_luma_is_matlabs() -> None:
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    image = colours.T.reshape(3, 1, 5).to(torch.uint8)
    np.testing.assert_allclose(luma(image), [[16, 235, 81.481, 144.553, 40.966]], atol=1e-9)
    assert luma(image).dtype == np.float64


def test_psnr_by_hand() -> None:
    hr = torch.full((3, 20, 20), 100, dtype=torch.uint8)
    sr = hr + 10  # 10 grey levels are 10 * 219 / 255 levels of luma
    assert psnr_y(sr, hr, 4) == pytest.approx(20 * math.log10(255 / (10 * 219 / 255)), abs=1e-9)
    assert psnr_y(hr, hr, 4) == math.inf


def test_border_is_left_out() -> None:
    hr = photo()
    sr = hr.clone()
    sr[:, :4] = sr[:, -4:] = 255 - sr[:, :4]
    sr[:, :, :4] = sr[:, :, -4:] = 0
    assert psnr_y(sr, hr, 4) == math.inf
    assert ssim_y(sr, hr, 4) == pytest.approx(1.0)
    assert psnr_y(sr, hr, 3) < 40
    assert ssim_y(sr, hr, 3) < 1


def windowed_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM from its definition: an 11x11 Gaussian window, every position inside the image."""
    axis = torch.arange(11, dtype=torch.float64) - 5
    bell = torch.exp(-(axis**2) / (2 * 1.5**2))
    kernel = torch.outer(bell, bell)[None, None]
    kernel /= kernel.sum()

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel)

    x, y = (torch.from_numpy(v)[None, None] for v in (a, b))
    ux, uy = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - ux * ux, mean(y * y) - uy * uy, mean(x * y) - ux * uy
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * ux * uy + c1) * (2 * vxy + c2)
    return float((top / ((ux**2 + uy**2 + c1) * (vx + vy + c2))).mean())


@pytest.mark.parametrize("amount", [1, 10, 60])
def test_ssim_is_its_definition(amount: int) -> None:
    hr = photo()
    sr = noisy(hr, amount)
    inside = (..., slice(4, -4), slice(4, -4))
    expected = windowed_ssim(luma(sr[inside]), luma(hr[inside]))
    assert ssim_y(sr, hr, 4) == pytest.approx(expected, abs=1e-9)


def test_smallest_image_for_each() -> None:
    hr = photo(19, 19)
    assert 0 < ssim_y(noisy(hr, 5), hr, 4) < 1
    with pytest.raises(DataError, match=r"18x30 image is too small .* at least 19 pixels"):
        ssim_y(photo(18, 30), photo(18, 30), 4)
    with pytest.raises(DataError, match=r"8x30 image is too small .* at least 9 pixels"):
        psnr_y(photo(8, 30), photo(8, 30), 4)


def test_unlike_images_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"cannot compare images of \(3, 20, 20\) and \(3, 20, 21\)"
    ):
        psnr_y(photo(20, 20), photo(20, 21), 4)
    with pytest.raises(DataError, match=r"uint8, not \(3, 20, 20\) torch.float32"):
        psnr_y(photo(20, 20).float(), photo(20, 20), 4)
    with pytest.raises(DataError, match=r"uint8, not \(2, 20, 20\)"):
        psnr_y(photo(20, 20), photo(20, 20)[:2], 4)


def published_bicubic(path: Path, scale: int) -> tuple[float, float]:
    """The recipe behind the published bicubic rows: 8-bit luma, whose LR image is not rounded."""
    height, width = (side // scale * scale for side in read_image(path).shape[1:])
    truth = np.round(luma(read_image(path)[:, :height, :width]))
    lr = torch.from_numpy(truth)[None, None]
    for dim in (2, 3):  # MATLAB's imresize on doubles: `downscale` without its roundings
        pad = [0, 0, 0, 0]
        pad[2 * (3 - dim)] = pad[2 * (3 - dim) + 1] = 2 * scale
        size = list(lr.shape[2:])
        size[dim - 2] = lr.shape[dim] // scale + 4
        padded = F.pad(lr, pad, mode="replicate")
        lr = F.interpolate(padded, size=size, mode="bicubic", antialias=True)
        lr = lr.narrow(dim, 2, size[dim - 2] - 4)
    sr = upscale(lr, scale)[0, 0].round().clamp(0, 255).numpy()
    inside = (slice(scale, -scale),) * 2
    return psnr(sr[inside], truth[inside]), ssim(sr[inside], truth[inside])


@pytest.mark.parametrize(("scale", "expected"), [(2, (33.66, 0.9299)), (4, (28.42, 0.8104))])
def test_set5_bicubic_as_published(shared: Path, scale: int, expected: tuple[float, float]) -> None:
    files = sorted((shared / "data" / "benchmark" / "Set5" / "HR").glob("*.png"))
    values = np.mean([published_bicubic(path, scale) for path in files], axis=0)
    assert values[0] == pytest.approx(expected[0], abs=0.005)
    assert values[1] == pytest.approx(expected[1], abs=0.00005)


@pytest.mark.parametrize(("scale", "expected"), [(2, (33.66, 0.9299)), (4, (28.42, 0.8104))])
def test_set5_bicubic_by_our_protocol(
    shared: Path, scale: int, expected: tuple[float, float]
) -> None:
    """From the published 8-bit LR images, on luma that is not rounded: 0.02 dB above the table."""
    scores = []
    for pair in find_pairs(shared / "data" / "benchmark" / "Set5", scale):
        lr, hr = load_pair(pair, scale)
        sr = to_uint8(upscale(lr[None].float(), scale)[0] / 255)
        scores.append((psnr_y(sr, hr, scale), ssim_y(sr, hr, scale)))
    values = np.mean(scores, axis=0)
    assert values[0] == pytest.approx(expected[0], abs=0.02)
    assert values[1] == pytest.approx(expected[1], abs=0.001)

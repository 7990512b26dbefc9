"""MATLAB's bicubic, against its own LR images, an independent implementation and stored arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from drc.core.errors import DataError
from drc.data.images import read_image
from drc.data.matlab import downscale, downscale_window, nearest, upscale

# A crop of scikit-image's astronaut, noise, and a one-pixel checkerboard (the most overshoot).
# `<image>_x<scale>` holds what `reference` below made of `<image>`, (H, W, 3) uint8.
STORED = Path(__file__).parents[1] / "files" / "matlab_bicubic.npz"
IMAGES = ("photo", "noise", "checks")
SCALES = (2, 3, 4, 8)


def cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def resize_rows(plane: np.ndarray, scale: int) -> np.ndarray:
    """Shrink the first axis in float64, one output row at a time; borders repeat the edge."""
    size = plane.shape[0]
    rows = []
    for row in range(size // scale):
        centre = (row + 0.5) * scale - 0.5
        taps = np.arange(int(np.floor(centre - 2 * scale)), int(np.ceil(centre + 2 * scale)) + 1)
        weights = cubic((taps - centre) / scale)
        weights /= weights.sum()
        rows.append(np.tensordot(weights, plane[np.clip(taps, 0, size - 1)], axes=1))
    return np.clip(np.floor(np.stack(rows) + 0.5), 0, 255)


def reference(image: np.ndarray, scale: int) -> np.ndarray:
    columns = resize_rows(image.astype(np.float64), scale)
    return resize_rows(columns.transpose(1, 0, 2), scale).transpose(1, 0, 2).astype(np.uint8)


def ours(image: np.ndarray, scale: int) -> np.ndarray:
    hr = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float()
    return downscale(hr, scale)[0].permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_equals_matlabs_own_images_in_every_pixel(shared: Path, name: str, scale: int) -> None:
    folder = shared / "data" / "benchmark" / name
    files = sorted((folder / "HR").glob("*.png"))
    assert len(files) == {"Set5": 5, "Set14": 14}[name]
    for path in files:
        lr = read_image(folder / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png")
        hr = read_image(path)[:, : lr.shape[1] * scale, : lr.shape[2] * scale]
        assert torch.equal(downscale(hr[None].float(), scale)[0].to(torch.uint8), lr), path.name


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", IMAGES)
def test_equals_stored_arrays(name: str, scale: int) -> None:
    with np.load(STORED) as stored:
        image, expected = stored[name], stored[f"{name}_x{scale}"]
    np.testing.assert_array_equal(ours(image, scale), expected)


@pytest.mark.parametrize("scale", SCALES)
def test_equals_an_independent_implementation(scale: int) -> None:
    rng = np.random.default_rng(scale)
    image = rng.integers(0, 256, (5 * scale, 7 * scale, 3), dtype=np.uint8)
    np.testing.assert_array_equal(ours(image, scale), reference(image, scale))


def test_unit_range_gives_the_same_levels() -> None:
    hr = torch.randint(0, 256, (2, 3, 24, 32)).float()
    unit = downscale(hr / 255, 4, value_range=1.0)
    assert torch.allclose(unit * 255, downscale(hr, 4), atol=1e-3)


def test_keeps_flat_images_and_scale_1() -> None:
    flat = torch.full((1, 3, 16, 24), 77.0)
    assert torch.equal(downscale(flat, 4), torch.full((1, 3, 4, 6), 77.0))
    assert downscale(flat, 1) is flat


def test_upscale_inverts_the_grid() -> None:
    ramp = torch.arange(12.0).view(1, 1, 1, 12).expand(1, 1, 12, 12)
    inner = upscale(ramp, 2)[0, 0, 8, 8:-8]
    assert torch.allclose(inner, (torch.arange(24)[8:-8] - 0.5) / 2, atol=1e-4)


def test_refuses_sides_that_are_no_multiple() -> None:
    with pytest.raises(DataError, match="10x12 image is not a multiple of x4; crop it"):
        downscale(torch.zeros(1, 3, 10, 12), 4)
    with pytest.raises(DataError, match="10x12 image is not a multiple of x4"):
        nearest(torch.zeros(1, 3, 10, 12), 4)


@pytest.mark.parametrize("scale", range(2, 9))
def test_a_window_equals_that_of_the_whole_image_bit_for_bit(scale: int) -> None:
    """Noise and few levels, which often round on a half; at every border and between them."""
    rng = np.random.default_rng(scale)
    noise = torch.from_numpy(rng.integers(0, 256, (1, 3, 40 * scale, 33 * scale), dtype=np.uint8))
    for hr in (noise, noise // 85 * 85 + noise % 2):
        whole = downscale(hr.float(), scale)
        for patch in (8, 17):
            for top in (0, 1, 2, 11, 40 - patch - 1, 40 - patch):
                for left in (0, 3, 33 - patch - 2, 33 - patch):
                    window = downscale_window(hr, scale, top, left, patch)
                    assert torch.equal(window, whole[..., top : top + patch, left : left + patch])


@pytest.mark.parametrize("scale", range(1, 9))
def test_nearest_takes_matlabs_pixels(scale: int) -> None:
    """From the published definition of imresize: positions from 1, and a box that holds its left
    end: x with -0.5 <= x < 0.5."""
    expected = []
    for row in range(1, 6):
        position = row * scale + 0.5 * (1 - scale)
        taken = [t for t in range(1, 5 * scale + 1) if -0.5 <= position - t < 0.5]
        assert len(taken) == 1
        expected.append(taken[0] - 1)
    ramp = torch.arange(5 * scale)
    shrunk = nearest(100 * ramp[:, None] + ramp, scale)
    assert shrunk[:, 0].div(100, rounding_mode="floor").tolist() == expected
    assert shrunk[0].remainder(100).tolist() == expected

"""Blur kernels and blind LR images, against SciPy, plain bicubic and themselves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from drc.core.errors import DataError, RunError, UsageError
from drc.data.blind_set import build_blind_set
from drc.data.bundled import bundled_pairs
from drc.data.crops import CropDataset, crop_loader
from drc.data.degrade import Degradation, blur, gaussian_kernel, random_anisotropic
from drc.data.folders import find_pairs, load_hr, load_pair
from drc.data.images import read_image, write_image
from drc.data.matlab import downscale, nearest

SETTINGS = [("iso", 2, 21), ("iso", 3, 21), ("iso", 4, 21), ("aniso", 2, 11), ("aniso", 4, 31)]
FIXED = [("nearest", 1), ("blur", 7)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photo(height: int, width: int) -> Tensor:
    """A piece of a real photo, `(1, 3, height, width)` in 0..1."""
    return read_image(bundled_pairs("test")[0].hr)[None, :, :height, :width].float() / 255


def delta(size: int) -> Tensor:
    kernel = torch.zeros(size, size, dtype=torch.float64)
    kernel[size // 2, size // 2] = 1
    return kernel


def spread(kernel: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Variances along the principal axes, small to large, and the axes as columns (x, y)."""
    weights = kernel.numpy()
    y, x = np.mgrid[: len(weights), : len(weights)] - len(weights) // 2
    assert abs((weights * x).sum()) < 1
    assert abs((weights * y).sum()) < 1
    covariance = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=weights.ravel(), bias=True)
    return np.linalg.eigh(covariance)


@pytest.mark.parametrize(("kind", "scale", "size"), SETTINGS)
def test_sampled_kernels_have_the_published_size_and_sum_to_one(kind, scale, size) -> None:
    degradation = Degradation(kind, scale)
    assert degradation.kernel_size == size
    source = generator()
    kernels = torch.stack([degradation.sample(source) for _ in range(50)])
    assert kernels.shape == (50, size, size)
    assert kernels.dtype == torch.float64
    assert (kernels >= 0).all()
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(50, dtype=torch.float64))
    assert torch.equal(kernels[0], degradation.sample(generator()))
    assert not torch.equal(kernels[0], kernels[1])


@pytest.mark.parametrize(("scale", "high"), [(2, 2.0), (3, 3.0), (4, 4.0)])
def test_isotropic_kernels_are_symmetric_with_sigmas_in_the_range(scale, high) -> None:
    source, sigmas = generator(), []
    for _ in range(100):
        kernel = Degradation("iso", scale).sample(source)
        for same in (kernel.flip(0), kernel.flip(1), kernel.T):
            torch.testing.assert_close(same, kernel)
        middle = kernel[10, 10] / kernel[10, 11]  # exp(1 / 2 sigma^2)
        sigmas.append(1 / math.sqrt(2 * math.log(middle)))
    assert 0.2 <= min(sigmas) < 0.2 + 0.1 * (high - 0.2)
    assert high - 0.1 * (high - 0.2) < max(sigmas) <= high


def test_axes_and_angle_of_a_gaussian() -> None:
    variances, axes = spread(gaussian_kernel(41, (4.0, 2.0), math.pi / 6))
    np.testing.assert_allclose(np.sqrt(variances), [2.0, 4.0], rtol=1e-3)
    along = axes[:, 1] * np.sign(axes[0, 1])
    np.testing.assert_allclose(along, [math.cos(math.pi / 6), math.sin(math.pi / 6)], atol=1e-3)


def test_anisotropic_kernels_are_elongated_and_uneven() -> None:
    source, ratios = generator(), []
    for _ in range(100):
        kernel = Degradation("aniso", 4).sample(source)
        variances, _ = spread(kernel)
        ratios.append(math.sqrt(variances[1] / variances[0]))
        assert not torch.allclose(kernel, kernel.flip(0, 1), rtol=1e-3, atol=0)
    assert max(ratios) > 3
    assert np.mean(ratios) > 1.5


def test_the_jitter_multiplies_entries_by_up_to_a_quarter_more() -> None:
    even = random_anisotropic(31, 3.0, 3.0, 0.0, generator())
    factor = random_anisotropic(31, 3.0, 3.0, 0.25, generator()) / even
    assert 1.2 < (factor.max() / factor.min()).item() <= 1.25


@pytest.mark.parametrize(("kind", "scale", "size"), SETTINGS)
def test_blur_equals_scipys_convolution(kind, scale, size) -> None:
    hr = photo(48, 60)
    kernel = Degradation(kind, scale).sample(generator(3))
    expected = np.stack(
        [ndimage.convolve(x, kernel.numpy(), mode="mirror") for x in hr[0].double().numpy()]
    )
    np.testing.assert_allclose(blur(hr, kernel)[0].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("scale", [2, 4])
def test_lr_equals_scipys_blur_and_matlabs_bicubic(scale: int) -> None:
    hr = photo(96, 120)
    degradation = Degradation("aniso", scale)
    kernel = degradation.sample(generator(1))
    blurred = ndimage.convolve(hr[0].double().numpy(), kernel.numpy()[None], mode="mirror")
    expected = downscale(torch.from_numpy(blurred)[None], scale, 1.0, rounded=False)
    exact = degradation.apply(hr, kernel, rounded=False)
    torch.testing.assert_close(exact.double(), expected, atol=2e-6, rtol=0)
    levels = degradation.apply(hr, kernel) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert (levels / 255 - exact.clamp(0, 1)).abs().max() < 0.5 / 255 + 1e-5
    wide = degradation.apply(hr * 255, kernel, value_range=255.0)
    assert (wide - levels).abs().max() <= 1  # a value on a half may fall to either side
    assert (wide - levels).abs().gt(0.5).float().mean() < 1e-3


@pytest.mark.parametrize(("kind", "scale", "size"), SETTINGS)
def test_a_delta_kernel_gives_plain_bicubic(kind, scale, size) -> None:
    hr = photo(96, 120)
    degradation = Degradation(kind, scale)
    exact = degradation.apply(hr, delta(size), rounded=False)
    torch.testing.assert_close(exact, downscale(hr, scale, 1.0, rounded=False), atol=1e-6, rtol=0)
    # MATLAB rounds after each of two passes, a degradation once.
    rounded = degradation.apply(hr, delta(size)) - downscale(hr, scale, 1.0)
    assert rounded.abs().max() < 2.1 / 255


@pytest.mark.parametrize(("kind", "scale", "size"), SETTINGS)
def test_lr_pixels_cover_their_hr_block_without_a_shift(kind, scale, size) -> None:
    """On a ramp, an LR pixel is the mean of its own block; half a pixel of shift would show."""
    side = 40 * scale
    ramp = torch.linspace(0, 1, side, dtype=torch.float64)[None, None, None].expand(1, 1, side, -1)
    for image in (ramp, ramp.transpose(2, 3)):
        means = torch.nn.functional.avg_pool2d(image, scale)
        round_kernel = gaussian_kernel(size, (2.0, 2.0))
        lr = Degradation(kind, scale).apply(image, round_kernel, rounded=False)
        inner = (..., slice(12, -12), slice(12, -12))
        torch.testing.assert_close(lr[inner], means[inner], atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", range(2, 9))
def test_nearest_keeps_pixels_unchanged_and_blur_blurs_them_first(scale: int) -> None:
    hr = (photo(12 * scale, 15 * scale) * 255).round()
    for kind, size in FIXED:
        degradation = Degradation(kind, scale)
        kernel = degradation.sample(generator())
        assert kernel.shape == (size, size) == (degradation.kernel_size,) * 2
        blurred = [
            ndimage.convolve(x, kernel.numpy(), mode="nearest") for x in hr[0].double().numpy()
        ]
        expected = nearest(torch.from_numpy(np.stack(blurred)), scale)
        exact = degradation.apply(hr, kernel, value_range=255.0, rounded=False)
        torch.testing.assert_close(exact[0].double(), expected, atol=5e-4, rtol=0)
        lr = degradation.apply(hr, kernel, value_range=255.0)
        assert torch.equal(lr, lr.round())
        if kind == "nearest":
            assert torch.equal(lr, nearest(hr, scale))
        noisy = Degradation(kind, scale, 10.0)
        noise = noisy.apply(hr, kernel, generator=generator(1), value_range=255.0) - lr
        assert 7 < noise.std() < 12


def test_the_blur_of_bd_is_matlabs_fspecial() -> None:
    """fspecial('gaussian', 7, 1.6), by its formula, written out for three of its entries."""
    kernel = Degradation("blur", 3).sample(generator())
    total = sum(math.exp(-(x * x + y * y) / 5.12) for x in range(-3, 4) for y in range(-3, 4))
    assert kernel[3, 3].item() == pytest.approx(1 / total)
    assert kernel[3, 0].item() == pytest.approx(math.exp(-9 / 5.12) / total)
    assert kernel[6, 6].item() == pytest.approx(math.exp(-18 / 5.12) / total)


@pytest.mark.parametrize("scale", [2, 3, 8])
@pytest.mark.parametrize("kind", ["nearest", "blur"])
def test_a_subsampled_window_equals_that_of_the_whole_image(kind, scale: int) -> None:
    hr = photo(30 * scale, 28 * scale)
    degradation = Degradation(kind, scale)
    kernel = degradation.sample(generator())
    whole = degradation.apply(hr, kernel) * 255
    for top, left in ((0, 0), (0, 9), (7, 5), (14, 12), (1, 11)):
        window = degradation.apply_window(hr, kernel, top, left, 16) * 255
        difference = (window - whole[..., top : top + 16, left : left + 16]).abs()
        assert difference.max() < 1.1
        assert difference.gt(0.5).float().mean() < 0.01
        assert kind == "blur" or difference.max() == 0


def test_subsampled_crops(tmp_path: Path) -> None:
    """Each LR crop is found in the image subsampled as a whole, cached or not."""
    hr = read_image(bundled_pairs("test")[0].hr)[:, :150, :163]
    write_image(tmp_path / "a.png", hr)
    whole = nearest(hr[:, :150, :162], 3) / 255
    blind = Degradation("nearest", 3)
    for size in (2**20, 0):
        dataset = CropDataset(find_pairs(tmp_path, 3), 3, 40, 20, 0, size, degradation=blind)
        for item in dataset:
            views = [item["lr"], item["lr"].transpose(1, 2)]
            views = [v.flip(d) for v in views for d in ((), (1,), (2,), (1, 2))]
            shown = whole.unfold(1, 40, 1).unfold(2, 40, 1).permute(1, 2, 0, 3, 4)
            assert any((shown == v).all(dim=(2, 3, 4)).any() for v in views)


def test_noise_has_the_given_deviation_and_seed() -> None:
    noisy, clean = Degradation("iso", 2, noise=10.0), Degradation("iso", 2)
    hr, kernel = torch.full((1, 3, 128, 128), 0.5), clean.sample(generator())
    lr = noisy.apply(hr, kernel, generator=generator(5), rounded=False)
    assert (lr - 0.5).std().item() * 255 == pytest.approx(10, rel=0.03)
    assert torch.equal(lr, noisy.apply(hr, kernel, generator=generator(5), rounded=False))
    with pytest.raises(UsageError, match="noise needs a generator"):
        noisy.apply(hr, kernel)


@pytest.mark.parametrize(("kind", "scale", "size"), SETTINGS)
def test_a_window_equals_that_of_the_whole_image(kind, scale, size) -> None:
    hr = photo(60 * scale, 50 * scale)
    degradation = Degradation(kind, scale)
    kernel = degradation.sample(generator(2))
    whole = degradation.apply(hr, kernel) * 255
    for top, left in ((0, 0), (0, 17), (20, 23), (44, 34), (3, 30)):
        window = degradation.apply_window(hr, kernel, top, left, 16) * 255
        expected = whole[..., top : top + 16, left : left + 16]
        assert window.shape == expected.shape
        # Sums in another order may round a value on a half to the other side.
        assert (window - expected).abs().max() < 1.1
        assert (window - expected).abs().gt(0.5).float().mean() < 0.01


def test_blurred_crops_show_the_places_of_the_plain_ones() -> None:
    pairs = bundled_pairs("train")[:2]

    def items(degradation: Degradation | None, seed: int = 4) -> CropDataset:
        return CropDataset(pairs, 4, patch=16, length=6, seed=seed, degradation=degradation)

    blurred, plain = items(Degradation("aniso", 4)), items(None)
    for ours, bicubic in zip(blurred, plain, strict=True):
        assert torch.equal(ours["hr"], bicubic["hr"])
        assert ours["lr"].shape == (3, 16, 16)
        assert ours["lr"].dtype == torch.float32
        assert not torch.equal(ours["lr"], bicubic["lr"])
        levels = ours["lr"] * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    again, other = items(Degradation("aniso", 4)), items(Degradation("aniso", 4), seed=5)
    assert all(torch.equal(again[i]["lr"], blurred[i]["lr"]) for i in (5, 0, 3))
    assert not torch.equal(other[0]["lr"], blurred[0]["lr"])


def test_lr_and_hr_crops_are_aligned_in_every_view(tmp_path: Path) -> None:
    """Blurring leaves ramps as they are, but for where the image ends; an LR pixel is 4 levels."""
    level = torch.arange(256, dtype=torch.uint8)
    ramps = torch.stack([level.expand(256, -1), level[:, None].expand(-1, 256)])
    write_image(tmp_path / "ramp.png", torch.cat([ramps, ramps[:1]]))
    dataset = CropDataset(
        find_pairs(tmp_path, 4), 4, 24, length=30, seed=0, degradation=Degradation("aniso", 4)
    )
    for item in dataset:
        error = item["lr"] - torch.nn.functional.avg_pool2d(item["hr"], 4)
        assert error.abs().flatten(1).median(1).values.max() * 255 < 1.6


def test_blurred_crops_ignore_lr_files_and_workers(tmp_path: Path) -> None:
    hr = read_image(bundled_pairs("test")[0].hr)[:, :160, :160]
    write_image(tmp_path / "HR" / "a.png", hr)
    write_image(tmp_path / "LR_bicubic" / "X4" / "ax4.png", torch.zeros_like(hr[:, :40, :40]))
    options = {"patch": 16, "batch": 2, "steps": 2, "seed": 1}
    blind = Degradation("iso", 4, noise=2.0)
    pairs = find_pairs(tmp_path, 4)
    batches = list(crop_loader(pairs, 4, **options, degradation=blind))
    assert min(batch["lr"].mean() for batch in batches) > 0.1
    apart = list(crop_loader(pairs, 4, **options, degradation=blind, workers=1))
    assert all(torch.equal(a["lr"], b["lr"]) for a, b in zip(batches, apart, strict=True))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos, one of no multiple of 4."""
    for pair, (height, width) in zip(bundled_pairs("test"), [(96, 83), (90, 120)], strict=True):
        write_image(tmp_path / "hr" / f"{pair.name}.png", read_image(pair.hr)[:, :height, :width])
    return tmp_path / "hr"


@pytest.mark.parametrize(("kind", "scale"), [("aniso", 4), ("iso", 2)])
def test_a_blind_set_has_the_layout_of_div2krk(photos: Path, kind, scale: int) -> None:
    root = photos.parent
    degradation = Degradation(kind, scale)
    made = build_blind_set(photos, root / "new" / "DIV2KRK", degradation, seed=7)
    folder = root / "new" / "DIV2KRK"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*")) == [
        "gt/img_1_gt.png",
        "gt/img_2_gt.png",
        f"gt_k_x{scale}/kernel_1.npz",
        f"gt_k_x{scale}/kernel_2.npz",
        f"lr_x{scale}/im_1.png",
        f"lr_x{scale}/im_2.png",
    ]
    assert [p.name for p in folder.parent.iterdir()] == ["DIV2KRK"]
    for place in (folder, folder.parent):
        assert [p.name for p in find_pairs(place, scale, "test")] == ["img_1_gt", "img_2_gt"]
    for number, (pair, source) in enumerate(zip(made, find_pairs(photos, scale), strict=True), 1):
        lr, hr = load_pair(pair, scale)
        assert torch.equal(hr, load_hr(source, scale))
        with np.load(folder / f"gt_k_x{scale}" / f"kernel_{number}.npz") as stored:
            assert str(stored["source"]) == source.hr.name
            kernel = torch.from_numpy(stored["kernel"])
        assert torch.equal(lr, degradation.apply(hr[None], kernel, value_range=255.0)[0].byte())


def test_a_set_without_blur_has_no_kernels(photos: Path) -> None:
    root, degradation = photos.parent, Degradation("nearest", 5)
    made = build_blind_set(photos, root / "sharp", degradation)
    assert sorted(p.name for p in (root / "sharp").iterdir()) == ["gt", "lr_x5"]
    for pair in made:
        lr, hr = load_pair(pair, 5)
        assert torch.equal(lr, nearest(hr, 5))
    build_blind_set(photos, root / "soft", Degradation("blur", 5))
    with np.load(root / "soft" / "gt_k_x5" / "kernel_2.npz") as stored:
        assert stored["kernel"].shape == (7, 7)


def test_one_seed_gives_one_set(photos: Path) -> None:
    root, degradation = photos.parent, Degradation("aniso", 4, noise=3.0)
    sets = [
        build_blind_set(photos, root / name, degradation, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    for one, same, other in zip(*sets, strict=True):
        assert torch.equal(load_pair(one, 4)[0], load_pair(same, 4)[0])
        assert not torch.equal(load_pair(one, 4)[0], load_pair(other, 4)[0])
    kernels = [np.load(root / "a" / "gt_k_x4" / f"kernel_{n}.npz")["kernel"] for n in (1, 2)]
    assert not np.array_equal(*kernels)


def test_a_set_is_made_whole_or_not_at_all(photos: Path) -> None:
    root, degradation = photos.parent, Degradation("aniso", 4)
    with pytest.raises(DataError, match="hr exists already; choose a new folder"):
        build_blind_set(photos, photos, degradation)
    write_image(photos / "tiny.png", torch.zeros(3, 12, 40, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"tiny\.png: a 12x40 image is too small for a 31x31 blur"):
        build_blind_set(photos, root / "out", degradation)
    assert [p.name for p in root.iterdir()] == ["hr"]
    with pytest.raises(DataError, match="nowhere: no such folder"):
        build_blind_set(root / "nowhere", root / "out", degradation)
    with pytest.raises(RunError, match=r"cannot write .*out"):
        build_blind_set(photos, photos / "tiny.png" / "out", degradation)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Degradation("box", 4), "is iso, aniso, nearest or blur, not 'box'"),
        (lambda: Degradation("aniso", 3), "aniso has kernels for x2 and x4, not for x3"),
        (lambda: Degradation("iso", 8), "iso has kernels for x2 and x3 and x4, not for x8"),
        (lambda: Degradation("nearest", 9), "nearest is for x2 to x8, not for x9"),
        (lambda: Degradation("blur", 1), "blur is for x2 to x8, not for x1"),
        (lambda: Degradation("iso", 4, noise=-1), "noise is in 8-bit levels, 0 to 255, not -1"),
        (lambda: gaussian_kernel(20, (1, 1)), "odd side, not 20"),
        (lambda: gaussian_kernel(21, (1, 0)), "above 0"),
        (lambda: blur(torch.zeros(1, 3, 9, 9), torch.ones(3, 5)), r"square and odd, not \(3, 5\)"),
        (
            lambda: CropDataset(
                bundled_pairs(), 2, 16, length=1, seed=0, degradation=Degradation("iso", 4)
            ),
            "the degradation is for x4, the crops are x2",
        ),
    ],
)
def test_bad_settings_are_told_in_one_line(make, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_image_must_be_larger_than_the_kernel_reaches() -> None:
    with pytest.raises(DataError, match="a 10x40 image is too small for a 21x21 blur kernel"):
        blur(torch.zeros(1, 3, 10, 40), gaussian_kernel(21, (1, 1)))

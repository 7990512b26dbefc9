"""Tiles: equal to the whole image where the network is local, and what happens where it is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import drc
from drc.core.errors import ModelError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.folders import load_pair
from drc.evaluation.inference import Inference, spans, upscale_tiled

SCALE = 4


class Convolutions(nn.Module):
    """A plain residual SR network that sees 8 LR pixels to each side."""

    def __init__(self, scale: int = SCALE) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(6))
        self.tail = nn.Conv2d(16, 3 * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x)
        for layer in self.body:
            features = features + torch.relu(layer(features))
        return F.pixel_shuffle(self.tail(features), self.scale)


class WindowMeans(nn.Module):
    """As window attention does: every pixel sees the whole window of 8x8 that it is in."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, -width % 8, 0, -height % 8), mode="reflect")
        means = F.avg_pool2d(padded, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
        return x + means[..., :height, :width]


@pytest.fixture(scope="module")
def lr() -> Tensor:
    """A whole photo, 75x112, `(1, 3, h, w)` in 0..1."""
    return load_pair(bundled_pairs("test")[0], SCALE)[0][None].float() / 255


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a part of the range of `one`."""
    assert one.shape == other.shape
    return ((one - other).abs().max() / (one.max() - one.min())).item()


@pytest.mark.parametrize(
    ("tile", "overlap", "multiple"), [(64, 16, 32), (33, 8, 1), (24, 8, 8), (40, 9, 4), (100, 8, 1)]
)
def test_a_local_network_gives_the_image_of_the_whole(lr, tile, overlap, multiple) -> None:
    model = Convolutions()
    sizes = []

    def run(part: Tensor) -> Tensor:
        sizes.append(part.shape[-2:])
        return model(part)

    with torch.no_grad():
        whole = model(lr)
        tiled = upscale_tiled(run, lr, SCALE, tile, overlap, multiple)
    assert difference(whole, tiled) < 1e-5
    assert len(sizes) > 1
    assert all(max(size) <= tile for size in sizes)


def test_too_small_an_overlap_shows() -> None:
    """The receptive field reaches 8 pixels, so the test above would see a pixel too few."""
    torch.manual_seed(0)
    model, image = Convolutions(), torch.rand(1, 3, 30, 70)
    with torch.no_grad():
        whole = model(image)
        equal = upscale_tiled(model, image, SCALE, 40, 8, 1)
        fewer = upscale_tiled(model, image, SCALE, 40, 3, 1)
    assert difference(whole, equal) < 1e-5
    assert difference(whole, fewer) > 1e-4


def test_windows_need_tiles_that_start_where_they_do(lr) -> None:
    model = WindowMeans()
    whole = model(lr)
    assert difference(whole, upscale_tiled(model, lr, 1, 32, 8, 8)) < 1e-6
    assert difference(whole, upscale_tiled(model, lr, 1, 64)) < 1e-6
    assert difference(whole, upscale_tiled(model, lr, 1, 30, 8, 1)) > 1e-2


def test_channel_attention_is_not_local(lr) -> None:
    """DRN takes means over the image. Measured here, tiles of 64: up to 1.4 % of the range, 0.02 %
    on average, which is 0.001 dB."""
    model = drc.create_model("drn_tiny", scale=SCALE, weights="default").eval()
    with torch.no_grad():
        whole = model(lr * 255)[-1]
        tiled = upscale_tiled(lambda x: model(x)[-1], lr * 255, SCALE, 64)
    apart = (whole - tiled).abs() / 255
    assert 1e-3 < apart.max().item() < 0.03
    assert apart.mean().item() < 5e-4


@pytest.mark.parametrize("multiple", [1, 4, 32])
@pytest.mark.parametrize("overlap", [0, 5, 16])
def test_kept_parts_cover_a_side_and_keep_clear_of_cuts(overlap: int, multiple: int) -> None:
    for tile in (2 * overlap + multiple, 2 * overlap + 3 * multiple + 1, 96):
        for length in (*range(1, 200, 7), tile, tile + 1, 2 * tile):
            parts = list(spans(length, tile, overlap, multiple))
            covered = [column for part in parts for column in range(part.first, part.last)]
            assert covered == list(range(length))
            for part in parts:
                assert part.start % multiple == 0
                assert part.stop - part.start <= tile
                assert part.start == 0 or part.first - part.start >= overlap
                assert part.stop == length or part.stop - part.last >= overlap
            if length > tile:  # networks may refuse images that are much smaller
                assert parts[-1].stop - parts[-1].start > tile - multiple


def test_small_images_go_through_whole() -> None:
    seen = []
    upscale_tiled(lambda x: seen.append(x.shape) or x, torch.rand(1, 3, 64, 50), 1, 64)
    assert seen == [(1, 3, 64, 50)]


@pytest.mark.parametrize(
    ("tile", "overlap", "multiple", "message"),
    [
        (63, 16, 32, "a tile of 63 has no room .* use one of at least 64"),
        (-1, 16, 32, "at least 64"),
        (64, -1, 32, "overlap -1 and multiple 32 must be at least 0 and 1"),
        (64, 16, 0, "must be at least 0 and 1"),
    ],
)
def test_impossible_tiles(tile: int, overlap: int, multiple: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        upscale_tiled(nn.Identity(), torch.rand(1, 3, 8, 8), 1, tile, overlap, multiple)


def test_a_network_of_another_scale_is_told() -> None:
    with pytest.raises(ModelError, match="a tile of 64x64 into 64x64, not 128x128"):
        upscale_tiled(nn.Identity(), torch.rand(1, 3, 80, 80), 2, 64)


def test_evaluate_with_tiles_gives_the_figures_of_whole_images() -> None:
    model, photos = Convolutions(), bundled_pairs("test")[:1]
    whole = drc.evaluate(model, photos, device="cpu")
    tiled = drc.evaluate(model, photos, device="cpu", tile=64, overlap=8)
    assert tiled.psnr == pytest.approx(whole.psnr, abs=1e-4)
    assert tiled.ssim == pytest.approx(whole.ssim, abs=1e-5)
    assert whole.data == "1 images passed in"
    assert tiled.data == "1 images passed in, in tiles of 64 with an overlap of 8"
    with pytest.raises(UsageError, match="a tile of 48 has no room"):
        drc.evaluate(model, photos, device="cpu", tile=48)


def test_self_ensemble_of_tiles_is_that_of_the_whole(lr) -> None:
    model = Convolutions()
    with torch.no_grad():
        whole = Inference(self_ensemble=True).run(model, lr, SCALE)
        tiled = Inference(self_ensemble=True, tile=64, overlap=8).run(model, lr, SCALE)
    assert difference(whole, tiled) < 1e-5

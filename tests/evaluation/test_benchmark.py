"""`drc.evaluate` on bundled photos, folders, pairs and tensors, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import drc
from drc.core.errors import DataError, ModelError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.crops import ImageDataset
from drc.data.folders import find_pairs
from drc.data.matlab import upscale
from drc.networks.registry import build


class Bicubic(nn.Module):
    """The bicubic baseline, as a single image or a pyramid, in either range."""

    def __init__(self, scale: int = 4, value_range: float = 1.0, pyramid: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.value_range = value_range
        self.pyramid = pyramid
        self.highest = 0.0

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self.highest = max(self.highest, x.max().item())
        sr = upscale(x, self.scale)
        return [x, sr] if self.pyramid else sr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, size in {"a": (11, 12), "b": (9, 10)}.items():
        small = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        small.resize((size[1] * 5, size[0] * 5), Image.Resampling.BICUBIC).save(
            tmp_path / f"{name}.png"
        )
    return tmp_path


def tensors(folder: Path, scale: int = 4) -> list[tuple[Tensor, Tensor]]:
    items = ImageDataset(find_pairs(folder, scale), scale)
    return [(item["lr"], item["hr"]) for item in items]


def test_set5_through_a_folder(shared: Path) -> None:
    result = drc.evaluate(Bicubic(), shared / "data" / "benchmark" / "Set5", device="cpu")
    assert result.psnr == pytest.approx(28.42, abs=0.02)
    assert result.ssim == pytest.approx(0.8104, abs=0.001)
    assert [image.name for image in result.images] == [f"img_00{i}" for i in range(1, 6)]
    assert result.data.endswith("Set5")


def test_bundled_photos() -> None:
    result = drc.evaluate(Bicubic(scale=2), device="cpu")
    assert [image.name for image in result.images] == [p.name for p in bundled_pairs("test")]
    assert result.data == "bundled photos"
    assert 30 < result.psnr < 45
    assert 0.85 < result.ssim < 1


def test_means_and_progress(folder: Path) -> None:
    calls = []
    result = drc.evaluate(
        Bicubic(), str(folder), device="cpu", progress=lambda *call: calls.append(call)
    )
    assert result.psnr == pytest.approx(sum(i.psnr for i in result.images) / 2)
    assert result.ssim == pytest.approx(sum(i.ssim for i in result.images) / 2)
    assert [call[:3] for call in calls] == [("evaluate", 1, 2), ("evaluate", 2, 2)]
    assert calls[0][3] == {"psnr": result.images[0].psnr, "ssim": result.images[0].ssim}


def test_every_form_of_data_gives_the_same_figures(folder: Path) -> None:
    expected = drc.evaluate(Bicubic(), folder, device="cpu")
    pairs = find_pairs(folder, 4)
    images = tensors(folder)
    forms = {
        "pairs": pairs,
        "tuples": images,
        "generator": (pair for pair in images),
        "batched": [(lr[None], hr[None]) for lr, hr in images],
        "dicts": [{"lq": lr, "gt": hr} for lr, hr in images],
        "loader": DataLoader(ImageDataset(pairs, 4), batch_size=1),
        "8-bit": [[(x * 255).round().to(torch.uint8) for x in pair] for pair in images],
    }
    for name, data in forms.items():
        result = drc.evaluate(Bicubic(), data, device="cpu")
        assert (result.psnr, result.ssim) == (expected.psnr, expected.ssim), name
        assert len(result.images) == 2
    assert result.data == "2 images passed in"


def test_batches_count_their_images(folder: Path) -> None:
    lr, hr = tensors(folder)[0]
    batch = (torch.stack([lr, lr, lr]), torch.stack([hr, hr, hr]))
    result = drc.evaluate(Bicubic(), [batch], device="cpu")
    assert [image.name for image in result.images] == ["image 1", "image 2", "image 3"]
    assert len({image.psnr for image in result.images}) == 1


@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_networks_of_either_range_and_pyramids(
    folder: Path, value_range: float, pyramid: bool
) -> None:
    model = Bicubic(value_range=value_range, pyramid=pyramid)
    result = drc.evaluate(model, folder, device="cpu")
    expected = drc.evaluate(Bicubic(), folder, device="cpu")
    assert result.psnr == pytest.approx(expected.psnr, abs=1e-3)
    assert value_range / 2 < model.highest <= value_range


def test_a_perfect_network_scores_infinite_psnr(folder: Path) -> None:
    class Memory(Bicubic):
        def forward(self, x: Tensor) -> Tensor:
            return next(hr[None] for lr, hr in images if torch.equal(lr[None], x))

    images = tensors(folder)
    result = drc.evaluate(Memory(), images, device="cpu")
    assert result.psnr == math.inf
    assert result.ssim == pytest.approx(1.0)


def test_registered_network_is_given_back_as_it_was(folder: Path) -> None:
    model = build("drn_tiny", 4).train()
    model.down.eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = drc.evaluate(model, folder, device="cpu")
    assert math.isfinite(result.psnr)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_modes_return_after_a_failure_too(folder: Path) -> None:
    class Fragile(Bicubic):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("sizes of tensors\nmust match")

    model = Fragile().train()
    with pytest.raises(ModelError, match=r"a \(LR 13x15\): RuntimeError: sizes of ten") as e:
        drc.evaluate(model, folder, device="cpu")
    assert "\n" not in str(e.value)
    assert model.training


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda sr: sr[..., :-1], r"into \(3, 52, 59\), not the \(3, 52, 60\) of the HR image"),
        (lambda sr: sr.mean(1, keepdim=True), r"into \(1, 52, 60\)"),
        (lambda sr: sr * math.nan, "a holds NaN or infinite"),
    ],
)
def test_wrong_outputs(folder: Path, wrong, message: str) -> None:
    class Wrong(Bicubic):
        def forward(self, x: Tensor) -> Tensor:
            return wrong(upscale(x, 4))

    with pytest.raises(ModelError, match=message):
        drc.evaluate(Wrong(), folder, device="cpu")


def test_unusable_data(tmp_path: Path) -> None:
    small = torch.rand(3, 4, 4), torch.rand(3, 16, 16)
    for data, message in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "no images found"),
        ([], "gave no batches"),
        (3, "cannot evaluate on a int; pass 'bundled', a folder"),
        ([small], "image 1: a 16x16 image is too small"),
        ([(small[0], small[0])], "not a x4 pair"),
        ([(small[0] * 255, small[1])], r"outside 0\.\.1"),
    ):
        with pytest.raises(DataError, match=message):
            drc.evaluate(Bicubic(), data, device="cpu")
    with pytest.raises(UsageError, match="not a device"):
        drc.evaluate(Bicubic(), device="gpu!")

"""Enlarging: what is measured is what comes out, whole or in tiles, by torch or by ONNX."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from helpers.cli import tiny_photos
from helpers.onnx_files import ConvShuffle, Folded, on_extended, write_onnx
from PIL import Image
from torch import nn
from torch.nn import functional as F

import drc
from drc.core.errors import DataError, ModelError, UsageError, WeightsError
from drc.data.bundled import bundled_pairs
from drc.data.folders import find_pairs, load_pair
from drc.data.images import read_image, to_uint8, to_unit
from drc.data.matlab import upscale as bicubic
from drc.data.photo import Photo
from drc.evaluation.image import psnr, psnr_y
from drc.evaluation.inference import Inference
from drc.exporters.formats.base import quiet
from drc.networks.traits import Traits, set_traits
from drc.upscaling import enlarge
from drc.upscaling.enlarge import Enlarger, passes
from drc.upscaling.network import torch_upscaler
from drc.upscaling.onnx_network import onnx_upscaler


@pytest.fixture(scope="module")
def lr() -> torch.Tensor:
    """A real LR photo, uint8, 75x112."""
    return load_pair(bundled_pairs("test")[0], 4)[0]


@pytest.fixture(scope="module")
def drn() -> nn.Module:
    return drc.create_model("drn_tiny", weights="default")


def photo(image: torch.Tensor) -> Photo:
    return Photo(image.permute(1, 2, 0).contiguous().numpy())


@pytest.mark.parametrize(
    ("options", "side"), [({}, 96), ({"tile": 64}, 288), ({"self_ensemble": True}, 96)]
)
def test_what_is_written_is_what_is_measured(tmp_path, drn, options, side):
    pair = find_pairs(tiny_photos(tmp_path / "photos", side), 4)[0]
    lr, hr = load_pair(pair, 4)
    with torch_upscaler(drn, "drn_tiny", "cpu") as upscaler:
        made = Enlarger(upscaler, **{"tile": 0, **options})(photo(lr))
    sr = torch.from_numpy(made.levels.transpose(2, 0, 1).copy())
    measured = drc.evaluate(drn, [pair], device="cpu", **options)
    assert psnr_y(sr, hr, 4) == measured.psnr
    assert torch.equal(drc.upscale(drn, lr, device="cpu", **options), sr)


def test_tiles_of_a_convolution_are_the_whole_image(lr):
    network = ConvShuffle()
    whole = drc.upscale(network, to_unit(lr), device="cpu")
    for tile, overlap in ((40, 4), (64, 16)):
        tiled = drc.upscale(network, to_unit(lr), tile, overlap=overlap, device="cpu")
        assert torch.allclose(tiled, whole, atol=1e-6)
    cut = drc.upscale(network, to_unit(lr), 32, overlap=0, device="cpu")
    assert not torch.allclose(cut, whole, atol=1e-6)  # the seams that overlaps avoid


def test_large_images_are_tiled_by_themselves(lr, monkeypatch):
    monkeypatch.setattr(enlarge, "WHOLE", 50 * 50)
    monkeypatch.setattr(enlarge, "AUTO_TILE", 64)
    told, counted = [], []
    with torch_upscaler(ConvShuffle(), "conv", "cpu") as upscaler:
        automatic = Enlarger(upscaler, log=told.append, on_pass=lambda *done: counted.append(done))
        made = automatic(photo(lr), "cat.png")
        whole = Enlarger(upscaler, tile=0)(photo(lr))
        assert automatic.inference(50, 50).tile == 0
    assert np.array_equal(made.levels, whole.levels)
    assert "cat.png: 112x75 goes through in tiles of 64; x2 makes it 224x150" in told[0]
    assert counted[-1] == (len(counted), passes(Inference(tile=64), 75, 112)) and len(counted) > 2


class Greedy(nn.Module):
    """A network that has memory for so many pixels."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.inner, self.pixels, self.seen = ConvShuffle(), pixels, []
        set_traits(self, Traits(scale=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.shape[-2] * x.shape[-1])
        if self.seen[-1] > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


def test_tiles_shrink_to_what_memory_holds(lr):
    network, told = Greedy(64 * 64), []
    with torch_upscaler(network, "greedy", "cpu") as upscaler:
        enlarger = Enlarger(upscaler, log=told.append)
        made = enlarger(photo(lr), "cat.png")
        tries = len(network.seen)
        enlarger(photo(lr), "cat.png")  # and are remembered
        assert len(network.seen) == 2 * tries - 1
        network.pixels = 10**9
        whole = Enlarger(upscaler, tile=0)(photo(lr))
        network.pixels = 64 * 64
        with pytest.raises(ModelError, match=r"cat.png: out of memory .* use --tile 64"):
            Enlarger(upscaler, tile=128)(photo(lr), "cat.png")
    assert "tiles of 64 from now on" in told[0]
    assert np.array_equal(made.levels, whole.levels)
    nowhere = pytest.raises(ModelError, match="use --device cpu or --amp bf16")
    with torch_upscaler(Greedy(9), "greedy", "cpu") as upscaler, nowhere:
        Enlarger(upscaler)(photo(lr))


class Windows(nn.Module):
    """x2, on sides that are multiples of 6 alone, or what else is asked: means of windows."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side, self.inner = side, ConvShuffle()
        set_traits(self, Traits(scale=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (_, channels, height, width), side = x.shape, self.side
        windows = x.view(1, channels, height // side, side, width // side, side)
        return self.inner((windows + windows.mean((3, 5), keepdim=True)).view(x.shape) / 2)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("network", "multiple"), [(Folded(), 2), (Windows(16), 16)])
def test_onnx_files_that_take_multiples_alone(tmp_path, lr, network, multiple, told):
    path = drc.export(network, tmp_path / "x.onnx", runs=0).path
    if not told:
        onnx.save(without_metadata(onnx.load(path)), path)
    upscaler = onnx_upscaler(path, "cpu")
    assert (upscaler.scale, upscaler.multiple, upscaler.side) == (2, multiple, 0)
    for height, width in ((75, 112), (64, 48), (33, 17), (5, 80), (1, 1)):
        image = lr[:, :height, :width]
        made = Enlarger(upscaler)(photo(image)).levels
        assert made.shape == (2 * height, 2 * width, 3)
        assert np.abs(made - on_extended(network, image, multiple)).max() <= 1
    whole = Enlarger(upscaler, tile=0)(photo(lr)).levels.astype(int)
    for tile in (64, 71):  # which starts tiles where windows start, and ends one where none does
        tiled = Enlarger(upscaler, tile=tile)(photo(lr)).levels
        assert np.abs(tiled - whole).max() <= 1
    assert Enlarger(upscaler, self_ensemble=True)(photo(lr)).levels.shape == whole.shape


def without_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.metadata_props[:]
    return model


def test_multiples_that_files_tell_and_tiles_between_them(tmp_path, lr):
    network, path = Windows(6), tmp_path / "x.onnx"
    with quiet():
        torch.onnx.export(
            network, (torch.rand(1, 3, 12, 18),), str(path), input_names=["lr"],
            output_names=["sr"], dynamic_axes={"lr": {2: "h", 3: "w"}}, dynamo=False,
        )  # fmt: skip
    model = onnx.load(path)

    def describe(multiple: str) -> None:
        onnx.helper.set_model_props(model, {"lr_multiple": multiple})
        onnx.save(model, path)

    describe("6")
    enlarger = Enlarger(onnx_upscaler(path, "cpu"), tile=128)
    wide = torch.cat([lr, lr.flip(2)], 2)
    made = enlarger(photo(wide)).levels
    assert enlarger.inference(75, 224).multiple == 96  # where tiles and windows both may start
    assert np.abs(made - on_extended(network, wide, 6)).max() <= 1
    with pytest.raises(UsageError, match="one of at least 128"):
        Enlarger(onnx_upscaler(path, "cpu"), tile=96)
    for wrong in ("0", "-2", "many", "5000"):
        describe(wrong)
        with pytest.raises(ModelError, match=f"lr_multiple is '{wrong}'"):
            onnx_upscaler(path, "cpu")
    model.metadata_props[0].key = "other"
    onnx.save(model, path)
    with pytest.raises(ModelError, match="does not run on a small image"):
        onnx_upscaler(path, "cpu")


@pytest.mark.parametrize("metadata", [{}, {"scale": "2", "value_range": "1"}])
@pytest.mark.parametrize("size", [("h", "w"), (48, 48), (64, 96)])
def test_onnx_gives_what_torch_gives(tmp_path, lr, size, metadata):
    network = ConvShuffle()
    upscaler = onnx_upscaler(write_onnx(tmp_path / "x.onnx", network, size, metadata), "cpu")
    assert (upscaler.scale, upscaler.channels, upscaler.value_range) == (2, 3, 1.0)
    assert upscaler.side == (0 if size[0] == "h" else min(size))
    inner = np.s_[6:-6, 6:-6] if upscaler.side else np.s_[:, :]  # beside what was extended
    for ensemble in (False, True):
        made = Enlarger(upscaler, self_ensemble=ensemble)(photo(lr)).levels.astype(int)
        expected = photo(drc.upscale(network, lr, 0, ensemble, device="cpu")).levels.astype(int)
        assert made.shape == expected.shape
        assert np.abs(made - expected)[inner].max() <= 1
    small = Enlarger(upscaler)(photo(lr[:, :20, :30])).levels
    assert small.shape == (40, 60, 3)


def test_onnx_in_another_range_in_half_precision_and_of_one_channel(tmp_path, lr):
    network = ConvShuffle()
    nn.init.constant_(network.conv.bias, 0.1)
    expected = drc.upscale(network, lr, device="cpu").int()
    path = write_onnx(tmp_path / "x.onnx", network, metadata={"value_range": "255"}, white=255.0)
    made = Enlarger(onnx_upscaler(path, "cpu"))(photo(lr)).levels
    assert np.abs(made.transpose(2, 0, 1) - expected.numpy()).max() <= 1
    made = Enlarger(onnx_upscaler(write_onnx(path, network, half=True), "cpu"))(photo(lr)).levels
    assert np.abs(made.transpose(2, 0, 1) - expected.numpy()).max() <= 2
    grey = onnx_upscaler(write_onnx(path, ConvShuffle(1)), "cpu")
    assert grey.channels == 1 and Enlarger(grey)(photo(lr)).levels.shape == (150, 224, 3)


def test_onnx_files_that_cannot_be_used(tmp_path, lr):
    with pytest.raises(WeightsError, match=r"no weights file .*none\.onnx"):
        onnx_upscaler(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(WeightsError, match="cannot open it"):
        onnx_upscaler(tmp_path / "text.onnx")
    path = write_onnx(tmp_path / "x.onnx", ConvShuffle(), metadata={"scale": "4"})
    with pytest.raises(ModelError, match="says that it enlarges x4, and it does x2"):
        onnx_upscaler(path)
    path = write_onnx(tmp_path / "x.onnx", ConvShuffle(), size=(48, 48))
    with pytest.raises(UsageError, match="takes tiles of 48 alone"):
        Enlarger(onnx_upscaler(path), tile=64)
    with pytest.raises(UsageError, match="onnxruntime-gpu"):
        onnx_upscaler(path, "cuda:0")


def test_self_ensemble_is_the_mean_over_eight_views(lr):
    network, image = ConvShuffle(), to_unit(lr)[None]
    views = []
    for turns in range(4):
        for mirrored in (False, True):
            view = torch.rot90(image.flip(-1) if mirrored else image, turns, (-2, -1))
            back = torch.rot90(network(view), -turns, (-2, -1))
            views.append(back.flip(-1) if mirrored else back)
    made = drc.upscale(network, image, self_ensemble=True, device="cpu")
    assert torch.allclose(made, torch.stack(views).mean(0).clamp(0, 1), atol=1e-6)


def test_grey_stays_grey_and_16_bits_stay_fine(drn, lr):
    grey = photo(lr).levels[..., 1:2]
    with torch_upscaler(drn, "drn_tiny", "cpu") as upscaler:
        enlarger = Enlarger(upscaler)
        made = enlarger(Photo(grey))
        assert made.levels.shape == (300, 448, 1) and made.levels.dtype == np.uint8
        as_rgb = enlarger(Photo(grey.repeat(3, 2))).levels
        luma = as_rgb @ np.array([65.481, 128.553, 24.966]) / 219
        assert np.abs(made.levels[..., 0] - luma).max() < 1
        deep = enlarger(Photo(photo(lr).levels.astype(np.uint16) * 257))
    assert deep.levels.dtype == np.uint16 and len(np.unique(deep.levels)) > 5000
    expected = drc.upscale(drn, lr, device="cpu").permute(1, 2, 0).numpy()
    assert np.array_equal(deep.in_8bit().levels, expected)


class LumaBicubic(nn.Module):
    """A network of one channel whose right result is known."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        set_traits(self, Traits(scale=2, value_range=255.0, channels=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == 1 and x.min() >= 15 and x.max() <= 236
        return bicubic(x, 2) * self.factor


def test_a_network_of_one_channel_does_the_luma(lr):
    with torch_upscaler(LumaBicubic(), "luma", "cpu") as upscaler:
        colour = Enlarger(upscaler)(photo(lr)).levels
        grey = Enlarger(upscaler)(Photo(photo(lr).levels[..., :1])).levels
    expected = to_uint8(bicubic(to_unit(lr)[None], 2))[0]
    assert np.abs(colour.transpose(2, 0, 1).astype(int) - expected.int().numpy()).max() <= 1
    assert np.abs(grey[..., 0].astype(int) - expected[0].int().numpy()).max() <= 1


def test_its_psnr_is_that_of_evaluate(lr):
    torch.manual_seed(0)
    network, pair = ConvShuffle(1), bundled_pairs("test")[0]
    small, hr = load_pair(pair, 2)
    with torch_upscaler(network, "luma", "cpu") as upscaler:
        made = Enlarger(upscaler)(photo(small)).levels.transpose(2, 0, 1).copy()
    measured = drc.evaluate(network, [pair], device="cpu").psnr
    # In colours of 8 bits, where evaluate rounds the luma itself.
    assert psnr_y(torch.from_numpy(made), hr, 2) == pytest.approx(measured, abs=0.02)


def test_alpha_is_enlarged_bicubically(lr):
    levels = photo(lr).levels
    shape = np.zeros((75, 112, 1), np.uint8)
    shape[20:50, 30:80] = 255
    with torch_upscaler(ConvShuffle(), "conv", "cpu") as upscaler:
        made = Enlarger(upscaler)(Photo(levels, shape))
        opaque = Enlarger(upscaler)(Photo(levels, np.full_like(shape, 200)))
        alone = Enlarger(upscaler)(Photo(levels))
    expected = to_uint8(bicubic(torch.from_numpy(shape.transpose(2, 0, 1) / 255)[None].float(), 2))
    assert np.array_equal(made.alpha[..., 0], expected[0, 0].numpy())
    assert np.array_equal(made.levels, alone.levels)
    assert opaque.alpha.shape == (150, 224, 1) and (opaque.alpha == 200).all()


def test_python_takes_tensors_pictures_and_paths(tmp_path, lr):
    network = ConvShuffle().train()
    floats = drc.upscale(network, to_unit(lr), device="cpu")
    assert floats.shape == (3, 150, 224) and floats.min() >= 0 and floats.max() <= 1
    batch = torch.stack([to_unit(lr), to_unit(lr).flip(-1)])
    assert torch.equal(drc.upscale(network, batch, device="cpu")[0], floats)
    levels = drc.upscale(network, lr, device="cpu")
    assert levels.dtype == torch.uint8 and torch.equal(levels, to_uint8(floats))
    picture = Image.fromarray(photo(lr).levels)
    picture.save(tmp_path / "x.png")
    for source in (picture, tmp_path / "x.png", str(tmp_path / "x.png")):
        made = drc.upscale(network, source, device="cpu")
        assert isinstance(made, Image.Image)
        assert np.array_equal(np.asarray(made), levels.permute(1, 2, 0).numpy())
    assert drc.upscale(network, picture.convert("LA"), device="cpu").mode == "LA"
    assert network.training and not floats.requires_grad


@pytest.mark.parametrize(
    "image", [torch.rand(1, 8, 8), torch.rand(8, 8), torch.zeros(3, 8, 8).long(), [1, 2]]
)
def test_python_refuses_what_is_no_image(image):
    with pytest.raises(DataError, match=r"int64|float32|list"):
        drc.upscale(ConvShuffle(), image, device="cpu")


def test_networks_that_fail(lr):
    class Broken(ConvShuffle):
        def forward(self, x):
            if x.shape[-1] == 48:  # as the network is looked at
                return super().forward(x)
            return F.interpolate(x, scale_factor=2) * float("nan")

    with pytest.raises(ModelError, match="NaN"):
        drc.upscale(Broken(), to_unit(lr), device="cpu")
    narrow = pytest.raises(UsageError, match="tile of 40 has no room")
    with torch_upscaler(ConvShuffle(), "conv", "cpu") as upscaler, narrow:
        Enlarger(upscaler, tile=40)
    for part, options in (("channels", (ConvShuffle(4), "rgba")), ("--amp", (ConvShuffle(), "x"))):
        with (
            pytest.raises(UsageError, match=part),
            torch_upscaler(*options, "cpu", "bf8" if part == "--amp" else "no"),
        ):
            pass


def test_bf16_is_close(drn, lr):
    with torch_upscaler(drn, "drn_tiny", "cpu", "bf16") as upscaler:
        made = Enlarger(upscaler)(photo(lr)).levels
    full = drc.upscale(drn, lr, device="cpu").permute(1, 2, 0).numpy()
    assert psnr(made.astype(float), full.astype(float)) > 35


def test_what_does_not_fit_into_memory_is_refused_before(lr, monkeypatch):
    class Memory:
        available = 100_000

    monkeypatch.setattr(enlarge.psutil, "virtual_memory", lambda: Memory)
    told = pytest.raises(DataError, match=r"big.png: x2 makes it 224x150, .* split the image")
    with torch_upscaler(ConvShuffle(), "conv", "cpu") as upscaler, told:
        Enlarger(upscaler)(photo(lr), "big.png")


def test_tall_and_tiny_images(drn):
    image = read_image(bundled_pairs("test")[1].hr)
    for height, width in ((1, 1), (3, 50), (40, 2)):
        made = drc.upscale(drn, image[:, :height, :width], device="cpu")
        assert made.shape == (3, 4 * height, 4 * width)

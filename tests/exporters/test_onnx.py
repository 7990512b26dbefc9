"""ONNX files: what they take, give and say, and the refusals, in the real onnxruntime."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cli import tiny_photos
from helpers.exporting import (
    Array,
    Baked,
    Bessel,
    Branched,
    Mirrored,
    Multiples,
    Noisy,
    Normed,
    Plain,
    Waves,
    in_unit_range,
    photo,
    small_drn,
)
from torch import nn
from torch.nn import functional as F

import drc
from drc.core.errors import ExportError, ModelError, RunError, UsageError
from drc.exporters.formats.base import Format, list_formats, quiet
from drc.exporters.parity import TOLERANCES
from drc.exporters.result import Exported, Speed
from drc.exporters.wrapper import enlarge
from drc.networks.zoo.swinir import SwinIR
from drc.upscaling.enlarge import Enlarger
from drc.upscaling.onnx_network import onnx_upscaler

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run(path: Path, lr: torch.Tensor) -> Array:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type) == ("lr", "tensor(float)")
    return session.run(["sr"], {"lr": lr.numpy()})[0]


def props(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


@dataclass(frozen=True)
class Written:
    """drn_tiny on its weights, and its file."""

    model: nn.Module
    result: Exported


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Written:
    model = drc.create_model("drn_tiny", weights="default")
    folder = tmp_path_factory.mktemp("onnx")
    return Written(model, drc.export(model, folder / "new" / "tiny", runs=2))


@pytest.mark.parametrize("size", [(16, 16), (21, 50)])
def test_the_file_takes_and_gives_images_in_0_to_1_of_any_size(tiny: Written, size):
    lr = photo(*size)
    found = run(tiny.result.path, lr)
    assert found.shape == (1, 3, 4 * size[0], 4 * size[1])
    assert np.abs(found - in_unit_range(tiny.model, lr, 255.0)).max() < 1e-5
    assert 0.05 < found.mean() < 0.95  # a photo, not one in 0..255


def test_the_file_says_what_it_is(tiny: Written):
    found = props(tiny.result.path)
    expected = {"scale": "4", "value_range": "1", "model": "drn_tiny", "channels": "3"}
    assert found.items() >= {**expected, "drc_version": drc.__version__}.items()
    assert onnx.load(str(tiny.result.path)).opset_import[0].version == 17 == tiny.result.opset


def test_the_result_says_what_was_measured(tiny: Written):
    result = tiny.result
    assert result.path.name == "tiny.onnx" and result.files == ["tiny.onnx"]
    assert [file.name for file in result.path.parent.iterdir()] == result.files
    assert result.bytes == result.path.stat().st_size
    assert len({check.lr_size for check in result.parity}) == 3
    assert all(check.largest < 1e-5 and check.psnr > 100 for check in result.parity)
    assert result.tolerance == TOLERANCES["fp32"] and result.quality is None
    assert result.speed is not None and result.speed.median_ms > 0
    assert result.speed.lr_size == (96, 96) and result.speed.dense_ms is None
    assert result.versions["onnxruntime"] == onnxruntime.__version__


def test_the_network_stays_as_it_was(tmp_path):
    model = Normed().train()
    before = copy.deepcopy(model.state_dict())
    result = drc.export(model, tmp_path / "a.onnx", runs=0)
    assert model.training and all(part.training for part in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    lr = photo(16, 16)
    expected = in_unit_range(model.eval(), lr, 1.0)  # files are of the network in eval mode
    assert np.abs(run(result.path, lr) - expected).max() < 1e-5


def test_a_pruned_network(tmp_path):
    model = small_drn()
    plan = drc.search(
        model, [], 0.3,
        settings=drc.SearchSettings(strategy="uniform", dual_weight=0, round_to=1),
    )  # fmt: skip
    small = drc.prune(model, plan, settings=drc.PruneSettings(importance="l1", reconstruct=False))
    result = drc.export(small, tmp_path / "small", dense=model, runs=1, lr_size=(24, 24))
    assert result.speed is not None and result.speed.dense_ms is not None
    assert result.speed.speedup == result.speed.dense_ms / result.speed.median_ms
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]
    lr = photo(24, 24)
    found = run(result.path, lr)
    assert np.abs(found - in_unit_range(small, lr, 255.0)).max() < 1e-5
    assert np.abs(found - in_unit_range(model, lr, 255.0)).max() > 1e-3
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        run(result.path, photo(24, 32))
    assert props(result.path)["lr_size"] == "24x24" and "lr_least" not in props(result.path)


def test_windows_at_sizes_that_do_not_fit_them(tmp_path):
    """The padding and the masks of shifted windows are computed in the file."""
    model = SwinIR([2], 12, num_heads=2, upsampler="pixelshuffledirect", scale=2).eval()
    result = drc.export(model, tmp_path / "swin", runs=0)
    assert (result.multiple, result.least) == (1, 5)  # mirrored windows of 8 take no smaller ones
    for size in ((17, 22), (64, 64), (32, 24), (5, 6)):  # 64x64 is what stored masks are for
        lr = photo(*size)
        assert np.abs(run(result.path, lr) - in_unit_range(model, lr, 1.0)).max() < 1e-5


def test_images_of_one_channel_and_sides_in_multiples(tmp_path):
    grey = drc.export(Plain(1), tmp_path / "grey", runs=0)
    assert (grey.channels, props(grey.path)["channels"]) == (1, "1")
    assert run(grey.path, photo(9, 11, 1)).shape == (1, 1, 18, 22)
    result = drc.export(Multiples(), tmp_path / "multiples", runs=1)
    assert (result.multiple, result.least) == (16, 16)
    assert props(result.path).items() >= {"lr_multiple": "16", "lr_least": "16"}.items()
    assert {side % 16 for check in result.parity for side in check.lr_size} == {0}


@pytest.mark.parametrize(("model", "least"), [(Branched(), 6), (Mirrored(), 5)])
def test_the_smallest_image_is_found_in_the_runtime_and_kept_to(tmp_path, model, least):
    """A file keeps the path that the photo took, and says nothing on images that take another."""
    result = drc.export(model, tmp_path / "a", runs=0)
    assert result.least == least and props(result.path)["lr_least"] == str(least)
    assert f"LR sides of at least {least};" in "\n".join(result.lines())
    for size in ((least, 43), (43, least)):
        found = run(result.path, photo(*size))
        assert np.abs(found - in_unit_range(model, photo(*size), 1.0)).max() < 1e-5
    small = photo(3, 20)
    made = Enlarger(onnx_upscaler(result.path, "cpu")).tensor(small)
    expected = in_unit_range(model, F.pad(small, (0, 0, 0, least - 3), mode="replicate"), 1.0)
    assert np.abs(made.numpy() - expected[:, :, :6].clip(0, 1)).max() < 1e-5


def test_the_newer_exporter_and_the_smallest_images(tmp_path, capfd):
    model = Waves()
    result = drc.export(model, tmp_path / "a", runs=0)
    assert (result.exporter, result.opset, result.least) == ("dynamo", 18, 1)
    assert capfd.readouterr() == ("", "")  # the older one, which fails, would print its graph
    for size in ((1, 1), (1, 9), (5, 2), (30, 30)):
        lr = photo(*size)
        assert np.abs(run(result.path, lr) - in_unit_range(model, lr, 1.0)).max() < 1e-5


def test_half_precision(tiny: Written, tmp_path):
    photos = tiny_photos(tmp_path / "photos")
    result = drc.export(tiny.model, tmp_path / "half", precision="fp16", test=photos, runs=0)
    assert result.bytes < 0.6 * tiny.result.bytes
    kinds = {t.data_type for t in onnx.load(str(result.path)).graph.initializer if t.dims}
    assert onnx.TensorProto.FLOAT16 in kinds
    lr = photo(21, 50)
    difference = np.abs(run(result.path, lr) - run(tiny.result.path, lr)).max()
    assert 1e-6 < difference < 5e-3
    assert result.quality is not None and abs(result.quality.cost) < 0.02


def test_int8_and_its_cost(tiny: Written, tmp_path):
    photos = tiny_photos(tmp_path / "photos")
    result = drc.export(
        tiny.model, tmp_path / "int8", precision="int8", data=photos, test=photos, runs=1
    )
    kinds = [(entry.domain, entry.version) for entry in onnx.load(str(result.path)).opset_import]
    assert kinds == [("", 17)]
    assert result.speed is not None and result.speed.float32_ms is not None
    assert result.speed.float32_ms > 0
    assert {file.name for file in tmp_path.iterdir()} == {"photos", "int8.onnx"}
    assert result.bytes < 0.6 * tiny.result.bytes
    graph = onnx.load(str(result.path)).graph
    kept = [n for n in graph.node if n.op_type == "Conv" and "tail" in n.name]
    weights = {tensor.name for tensor in graph.initializer}
    assert kept and all(node.input[1] in weights for node in kept)  # these write images
    assert sum(node.op_type == "DequantizeLinear" for node in graph.node) > 50
    found = drc.evaluate(tiny.model, photos)
    assert result.quality is not None
    assert result.quality.network == pytest.approx(found.psnr, abs=1e-3)
    assert result.quality.cost == pytest.approx(found.psnr - result.quality.file, abs=1e-3)
    assert -0.1 < result.quality.cost < 0.3 and result.quality.cost != 0
    assert any("cost" in line for line in result.lines())


@pytest.mark.parametrize(
    ("own", "line"),
    [
        (100.0, "fp16 is 1.50x as fast as float32 here (150.0 ms)"),
        (149.0, "fp16 is not faster than float32 here (150.0 ms, 1.01x), only smaller"),
        (300.0, "fp16 is not faster than float32 here (150.0 ms, 0.50x), only smaller"),
    ],
)
def test_whether_a_lower_precision_is_faster_is_said_plainly(tiny: Written, own, line):
    speed = Speed(own, None, None, 150.0, (96, 96), 5, 1)
    lines = [text.strip() for text in replace(tiny.result, precision="fp16", speed=speed).lines()]
    assert lines[-1] == line
    assert not any("float32" in text for text in tiny.result.lines())


def test_the_default_file_is_one_that_tensorrt_reads(tiny: Written):
    """Its parser has Resize, but not with cubic kernels, and names open axes as the file does."""
    model = onnx.load(str(tiny.result.path))
    axes = [
        [dim.dim_param or dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        for entry in (*model.graph.input, *model.graph.output)
    ]
    assert axes == [[1, 3, "height", "width"], [1, 3, "sr_height", "sr_width"]]
    ops = {node.op_type for node in model.graph.node}
    assert {"Conv", "DepthToSpace"} < ops and "Resize" not in ops


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (17, 30)])
def test_bicubic_enlargement_as_a_convolution(factor, size):
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    expected = F.interpolate(image, scale_factor=factor, mode="bicubic")
    assert (enlarge(image, factor) - expected).abs().max() < 1e-6


def test_opsets(tmp_path):
    result = drc.export(Plain(), tmp_path / "a", opset=20, runs=0)
    assert (result.opset, onnx.load(str(result.path)).opset_import[0].version) == (20, 20)
    with pytest.raises(ExportError, match="dynamo: it writes opset 18 and newer, not 17"):
        drc.export(Waves(), tmp_path / "b", opset=17, runs=0)


def test_outputs_that_differ_are_refused_and_the_file_kept_aside(tmp_path):
    (tmp_path / "noisy.onnx").write_text("an older file")
    with pytest.raises(ExportError, match=r"differs by .* allowed at most 0\.0005") as error:
        drc.export(Noisy(), tmp_path / "noisy", runs=0, overwrite=True)
    assert "noisy.rejected.onnx" in str(error.value) and error.value.exit_code == 1
    assert onnx.load(str(tmp_path / "noisy.rejected.onnx")).graph.node
    assert (tmp_path / "noisy.onnx").read_text() == "an older file"
    assert len(list(tmp_path.iterdir())) == 2
    assert "--lr-size" not in str(error.value)  # it is wrong at the size it was traced at


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that is read-only")
def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(RunError, match=r"cannot write into /proc: .*; pass another --output"):
        drc.export(Plain(), "/proc/a", runs=0)
    with pytest.raises(RunError, match=r"cannot make /proc/new: .*; pass another --output"):
        drc.export(Plain(), tmp_path / "a", dense=Plain(), dense_path="/proc/new/b", runs=0)
    assert not list(tmp_path.iterdir())


def test_a_network_that_keeps_its_size(tmp_path):
    with pytest.raises(ExportError, match=r"the graph keeps that size.*--lr-size HxW"):
        drc.export(Baked(), tmp_path / "baked", runs=0)
    model = Baked()
    result = drc.export(model, tmp_path / "fixed", runs=0, lr_size=(20, 30))
    assert result.lr_size == (20, 30) and {c.lr_size for c in result.parity} == {(20, 30)}
    lr = photo(20, 30)
    assert np.abs(run(result.path, lr) - in_unit_range(model, lr, 1.0)).max() < 1e-5


def test_an_op_without_onnx_form_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"bessel_j0.*try --to pt2") as error:
        drc.export(Bessel(), tmp_path / "bessel", runs=0)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    assert drc.export(Bessel(), tmp_path / "bessel", to="pt2", runs=0).path.is_file()


@pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO, logging.CRITICAL])
def test_what_the_caller_does_not_log_stays_so(level):
    logging.disable(level)
    try:
        with pytest.raises(ZeroDivisionError), quiet():
            assert logging.root.manager.disable == max(level, logging.WARNING)
            raise ZeroDivisionError
        assert logging.root.manager.disable == level
    finally:
        logging.disable(logging.NOTSET)


def test_what_exists_is_not_replaced_unasked(tmp_path):
    (tmp_path / "a.onnx").write_text("older")
    with pytest.raises(UsageError, match=r"a\.onnx exists; pass --overwrite"):
        drc.export(Plain(), tmp_path / "a", runs=0)
    assert (tmp_path / "a.onnx").read_text() == "older"
    drc.export(Plain(), tmp_path / "a", runs=0, overwrite=True)
    assert onnx.load(str(tmp_path / "a.onnx")).graph.node


class Absent(Format):
    """A format whose runtime nobody has."""

    name, suffixes, ways = "absent", (".absent",), ("none",)
    packages = ("no_such_runtime",)

    def write(self, request, way, path):
        raise AssertionError

    def load(self, path, threads):
        raise AssertionError


def test_a_runtime_that_is_not_installed_is_named_with_its_extra():
    with pytest.raises(UsageError, match=r"no_such_runtime.*pip install 'drc-sr\[absent\]'"):
        Absent().need("fp32")


@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        ({"to": "onxx"}, UsageError, "did you mean onnx"),
        ({"to": "ncnn", "precision": "int8"}, UsageError, "fp32 or fp16"),
        ({"opset": 9}, UsageError, "17 to"),
        ({"runs": -1}, UsageError, "--runs is -1"),
        ({"lr_size": (0, 8)}, UsageError, "no pixels"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, arguments, error, part):
    with pytest.raises(error, match=part):
        drc.export(Plain(), tmp_path / "a", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_size_that_the_network_does_not_take(tmp_path):
    with pytest.raises(ModelError, match=r"20x30.*multiples of 16"):
        drc.export(Multiples(), tmp_path / "a", lr_size=(20, 30))


def test_the_formats():
    assert list_formats() == ["ncnn", "onnx", "openvino", "pt2"]

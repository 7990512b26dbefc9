"""torch.export, OpenVINO and ncnn files, each read by the plain runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.exporting import (
    Array,
    Baked,
    Bessel,
    Branched,
    Mirrored,
    Plain,
    in_unit_range,
    photo,
    small_drn,
)
from torch import Tensor, nn
from torch.nn import functional as F

import drc
from drc.core.errors import ExportError
from drc.exporters.result import Exported
from drc.exporters.wrapper import UnitNetwork

SIZES = ((16, 16), (21, 50))


def agrees(found: Array, model: nn.Module, lr: Tensor, within: float = 1e-5) -> bool:
    expected = in_unit_range(model, lr, 255.0)
    return found.shape == expected.shape and bool(np.abs(found - expected).max() < within)


def run_ncnn(path: Path, lr: Tensor) -> Array:
    ncnn = pytest.importorskip("ncnn")
    net = ncnn.Net()
    assert net.load_param(str(path)) == 0
    assert net.load_model(str(path).replace(".param", ".bin")) == 0
    with net.create_extractor() as extractor:
        extractor.input("in0", ncnn.Mat(lr[0].numpy()).clone())
        code, sr = extractor.extract("out0")
        assert code == 0
        return np.array(sr)[None]


def test_pt2_runs_without_drc(tmp_path):
    model = small_drn()
    result = drc.export(model, tmp_path / "a", to="pt2", runs=0)
    assert result.files == ["a.pt2"] and result.opset is None
    images = [photo(*size) for size in SIZES]
    torch.save(images, tmp_path / "images.pt")
    program = (
        "import sys, torch\n"
        "module = torch.export.load('a.pt2').module()\n"
        "torch.save([module(lr) for lr in torch.load('images.pt')], 'found.pt')\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'drc']\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    for lr, sr in zip(images, torch.load(tmp_path / "found.pt"), strict=True):
        assert agrees(sr.detach().numpy(), model, lr)


def read_pt2(path: Path) -> tuple[nn.Module, str]:
    """The program in a file, and what the file says of itself."""
    texts = {"drc.txt": ""}
    return torch.export.load(str(path), extra_files=texts).module(), texts["drc.txt"]


@pytest.mark.parametrize(("model", "least"), [(Plain(), 1), (Branched(), 6), (Mirrored(), 5)])
def test_pt2_takes_images_as_small_as_the_network_does(tmp_path, model, least):
    result = drc.export(model, tmp_path / "a", to="pt2", runs=0)
    module, facts = read_pt2(result.path)
    assert result.least == least and f"lr_least: {least}" in facts.splitlines()
    for size in ((least, least), (least, 30), (30, least)):
        assert torch.equal(module(photo(*size)), model(photo(*size)))
    if least > 1:
        with pytest.raises((AssertionError, RuntimeError)):
            module(photo(least - 1, 30))


def test_openvino(tmp_path):
    openvino = pytest.importorskip("openvino")
    model = small_drn()
    sizes = {}
    for precision in ("fp32", "fp16"):
        result = drc.export(
            model, tmp_path / precision, to="openvino", precision=precision, test=None, runs=0
        )
        assert result.files == [f"{precision}.xml", f"{precision}.bin"]
        assert result.bytes == sum((tmp_path / name).stat().st_size for name in result.files)
        sizes[precision] = (tmp_path / f"{precision}.bin").stat().st_size
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    read = openvino.Core().read_model(tmp_path / "fp32.xml")
    assert read.get_rt_info(["drc", "scale"]).value == "2"
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(read, "CPU", exact)
    for size in SIZES:
        lr = photo(*size)
        assert agrees(compiled([lr.numpy()])[0], model, lr)


def test_ncnn(tmp_path):
    pytest.importorskip("pnnx")
    model = small_drn()
    result = drc.export(model, tmp_path / "a", to="ncnn", runs=1, dense=model)
    assert result.files == ["a.ncnn.param", "a.ncnn.bin"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(result.files)
    assert result.speed is not None and result.speed.dense_ms is not None
    for size in SIZES:
        lr = photo(*size)
        assert agrees(run_ncnn(result.path, lr), model, lr, 1e-3)
    half = drc.export(model, tmp_path / "half", to="ncnn", precision="fp16", test=None, runs=0)
    assert half.bytes < 0.6 * result.bytes
    assert agrees(run_ncnn(half.path, lr), model, lr, 2e-2)


def test_an_op_without_ncnn_layer_is_named(tmp_path):
    pytest.importorskip("pnnx")
    with pytest.raises(ExportError, match="bessel_j0") as error:
        drc.export(Bessel(), tmp_path / "a", to="ncnn", runs=0)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_size_that_the_graph_keeps_is_refused_in_pt2_too(tmp_path):
    with pytest.raises(ExportError, match="--lr-size HxW"):
        drc.export(Baked(), tmp_path / "a", to="pt2", runs=0)
    assert drc.export(Baked(), tmp_path / "a", to="pt2", runs=0, lr_size=(20, 30)).bytes > 0


class Upsampled(Plain):
    """Resamples by a factor, and by a factor that is no whole number."""

    def forward(self, x: Tensor) -> Tensor:
        small = F.interpolate(x, scale_factor=0.5, mode="bilinear")
        return super().forward(x) + F.interpolate(x, None, 2) + 0 * small.mean()


def test_calls_are_rewritten_only_while_exporting():
    model = Upsampled()
    lr = photo(12, 20)
    assert torch.equal(UnitNetwork(model)(lr), model(lr))
    program = torch.export.export(UnitNetwork(model), (lr,), strict=False)
    assert torch.equal(program.module()(lr), model(lr))


def test_lines_for_people(tmp_path):
    found: Exported = drc.export(Plain(), tmp_path / "a", to="pt2", runs=1, lr_size=(16, 24))
    text = "\n".join(found.lines())
    assert "LR 16x24 alone" in text and "latency at LR 16x24" in text and "MB" in text

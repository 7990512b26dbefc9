"""`drc export` on the real command: a run, files, folders that exist, and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.cli import assert_one_line, drc, interrupt, tiny_photos

import drc as package
from drc.networks.registry import build
from drc.networks.zoo.drn import dense_widths
from drc.settings import RunSettings
from drc.store.run_folder import RunFolder

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

QUICK = ("--runs", "0", "--quiet")

OWN = """
import torch
from torch import nn
from torch.nn import functional as F

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.tail = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x):
        return F.pixel_shuffle(self.tail(self.between(x)), 2)

    def between(self, x):
        return x

class Noisy(Own):
    def between(self, x):
        return x + torch.rand_like(x)

class Bessel(Own):
    def between(self, x):
        return torch.special.bessel_j0(x)
"""


@dataclass(frozen=True)
class Work:
    """A folder with a run of drn_tiny that is pruned by half, and what an export of it printed."""

    folder: Path
    run: Path
    printed: str
    logged: str


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("export")
    (folder / "own.py").write_text(OWN)
    photos = str(tiny_photos(folder / "photos"))
    settings = RunSettings(model="drn_tiny", data={"data": photos, "test_data": photos})
    plain = settings.model_dump(mode="json", exclude={"output"})
    run = RunFolder.create(folder / "runs" / "one", "drn_tiny", 4, plain)
    widths = [width // 2 for width in dense_widths(8, 8, 4)]
    package.save(build("drn_tiny", 4, widths), run.pruned_path)
    run.record("prune", {"finished": True})
    result = drc("export", "--runs", "2", "--threads", "1", cwd=folder)
    assert result.returncode == 0, result.stderr
    return Work(folder, run.path, result.stdout, result.stderr)


def record(folder: Path) -> list[dict]:
    content = json.loads((folder / "export.json").read_text())
    assert (content["format"], content["schema_version"]) == ("drc-export", 1)
    return content["exports"]


def test_the_newest_run_as_onnx_beside_its_dense_network(work: Work):
    folder = work.run / "export"
    assert sorted(path.name for path in folder.iterdir()) == [
        "drn_tiny_x4_pruned.onnx",
        "export.json",
    ]
    lines = work.printed.splitlines()
    assert lines[0].endswith("runs/one/export/drn_tiny_x4_pruned.onnx")
    assert "onnx fp32, by torchscript, opset 17; any LR size" in lines[1]
    assert "against the network on LR 29x43, 40x70, 72x48" in lines[2]
    assert "dense" in lines[3] and "median of 2, 1 thread)" in lines[3]
    (entry,) = record(folder)
    assert entry["file"] == "drn_tiny_x4_pruned.onnx" and entry["files"] == [entry["file"]]
    speed = entry["speed"]
    assert speed["speedup"] == speed["dense_ms"] / speed["median_ms"]
    assert len(entry["parity"]) == 3 and entry["multiple"] == 1 and entry["lr_size"] is None
    found = onnx.load(str(folder / entry["file"]))
    assert {prop.key: prop.value for prop in found.metadata_props}["scale"] == "4"


def test_a_file_that_exists_stays(work: Work):
    path = work.run / "export" / "drn_tiny_x4_pruned.onnx"
    before = path.read_bytes()
    result = drc("export", *QUICK, cwd=work.folder)
    assert_one_line(result, 2, "drn_tiny_x4_pruned.onnx exists", "--overwrite")
    assert path.read_bytes() == before


def test_half_precision_the_dense_file_and_json(work: Work):
    options = ["--run", work.run, "--fp16", "--dense", "--output", "out", "--json"]
    result = drc("export", *options, *QUICK, cwd=work.folder, timeout=250)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    stems = ["drn_tiny_x4_dense_fp16", "drn_tiny_x4_pruned_fp16"]
    files = {path.name for path in (work.folder / "out").iterdir()}
    assert files == {f"{stem}.onnx" for stem in stems} | {"export.json"}
    (entry,), (noted,) = printed, record(work.folder / "out")
    assert entry["precision"] == "fp16"
    assert entry["quality"]["data"].startswith(str(work.folder / "photos"))
    assert entry["quality"] == noted["quality"] and "dense" in noted["notes"][0]
    dense, pruned = (work.folder / "out" / f"{stem}.onnx" for stem in stems)
    assert entry["bytes"] == pruned.stat().st_size
    assert pruned.stat().st_size < 0.8 * dense.stat().st_size


def test_own_code_one_size_and_what_fails_beside_what_works(work: Work):
    model = ["--model", "own.py:Bessel", "--to", "onnx,pt2", "--lr-size", "16x24"]
    result = drc("export", *model, "--output", "own", *QUICK, cwd=work.folder)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: no onnx file of Bessel") and "bessel_j0" in line
    assert "Bessel_x2_16x24.pt2" in result.stdout and "LR 16x24 alone" in result.stdout
    assert [entry["format"] for entry in record(work.folder / "own")] == ["pt2"]


def test_a_checkpoint_file(work: Work):
    file = work.run / "pruned.safetensors"
    result = drc("export", "--weights", file, "--output", "file", *QUICK, cwd=work.folder)
    assert result.returncode == 0, result.stderr
    (entry,) = record(work.folder / "file")
    assert entry["file"] == "pruned.onnx" and entry["speed"] is None


def test_ctrl_c_leaves_no_files_behind(work: Work):
    folder = work.folder / "stopped"
    arguments = ["export", "--run", work.run, "--to", "onnx,pt2", "--output", folder, "--runs", "0"]

    def second_file_is_being_written() -> bool:
        return (folder / "export.json").exists() and any(folder.glob(".export-*"))

    result = interrupt(arguments, work.folder, second_file_is_being_written)
    assert result.returncode == 130
    assert result.stderr.splitlines()[-1] == "interrupted"
    names = {path.name for path in folder.iterdir()}
    assert names == {"drn_tiny_x4_pruned.onnx", "export.json"}  # the first format is whole
    assert [entry["format"] for entry in record(folder)] == ["onnx"]


def test_outputs_that_differ_fail_and_are_kept_aside(work: Work):
    model = ["--model", "own.py:Noisy", "--output", "noisy"]
    result = drc("export", *model, *QUICK, cwd=work.folder)
    assert_one_line(result, 1, "differs by", "noisy/Noisy_x2.rejected.onnx")
    assert {path.name for path in (work.folder / "noisy").iterdir()} == {"Noisy_x2.rejected.onnx"}
    again = drc("export", *model, *QUICK, cwd=work.folder)  # what failed is not in the way
    assert_one_line(again, 1, "noisy/Noisy_x2.rejected.onnx")


@pytest.mark.parametrize(
    ("command", "to", "package"),
    [
        (("export", "--to"), "onnx", "onnxruntime"),
        (("export", "--to"), "openvino", "openvino"),
        (("export", "--to"), "ncnn", "pnnx"),
        (("bench", "--model", "drn_tiny", "--modes"), "ncnn_fp16", "ncnn"),
    ],
)
def test_a_runtime_that_is_not_installed_is_named(work: Work, command, to, package):
    """The real command in a process whose import system does not have the package."""
    code = (
        f"import runpy, sys; sys.modules[{package!r}] = None\n"
        "runpy.run_module('drc', run_name='__main__', alter_sys=True)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *command, to], cwd=work.folder, capture_output=True, text=True
    )
    extra = to.removesuffix("_fp16")
    assert_one_line(result, 2, package, f"pip install 'drc-sr[{extra}]'")


def test_a_folder_of_something_else_is_left_alone(work: Work):
    result = drc("export", "--output", "photos", *QUICK, cwd=work.folder)
    assert_one_line(result, 1, "photos exists", "--output")
    result = drc("export", "--output", "own.py", *QUICK, cwd=work.folder)
    assert_one_line(result, 1, "own.py is a file")
    (work.folder / "damaged").mkdir()
    (work.folder / "damaged" / "export.json").write_text("{")
    result = drc("export", "--output", "damaged", *QUICK, cwd=work.folder)
    assert_one_line(result, 1, "damaged/export.json is not a record")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["--to", "onxx"], 2, ["did you mean onnx"]),
        (["--to", "pt2", "--int8"], 2, ["pt2 files are written in fp32", "--int8"]),
        (["--lr-size", "16"], 2, ["--lr-size", "270x480"]),
        (["--weights", "a.pth", "--run", "runs/one"], 2, ["one of them"]),
        (["--model", "drn_tiny", "--dense"], 2, ["--dense"]),
        (["--scale", "2"], 2, ["--scale is for --model"]),
        (["--run", "nowhere"], 1, ["no run folder nowhere"]),
        (["--weights", "a.pth"], 1, ["a.pth"]),
        (["--threads", "0"], 2, ["--threads is 0"]),
        (["--to", "pt2,ncnn", "--opset", "18"], 2, ["--opset is of ONNX files", "pt2,ncnn"]),
        (["--to", "onnx,"], 2, ["no export format is called ''"]),
        (["--lr-size", "0x96"], 2, ["0x96"]),
        (["--lr-size", "-8x96"], 2, ["-8x96"]),
        (["--lr-size", "96x96x3"], 2, ["96x96x3"]),
        (["--lr-size", "a lot"], 2, ["a lot"]),
    ],
)
def test_what_cannot_be_exported(work: Work, arguments, code, parts):
    assert_one_line(drc("export", *arguments, *QUICK, cwd=work.folder), code, *parts)

"""`drc bench`: networks side by side in every mode, on the real command and tiny sizes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.cli import FinishedRun, assert_one_line, drc, interrupt
from helpers.exporting import Bessel, Plain
from torch import Tensor, nn

import drc as package
from drc.core.errors import UsageError
from drc.evaluation.complexity import complexity
from drc.evaluation.speed import MODES, TorchMode, bench
from drc.exporters.backends import backends
from drc.exporters.measuring import peak_mib
from drc.exporters.run import export

SIZE = ["--lr-size", "16x16"]
QUICK = [*SIZE, "--runs", "1", "--modes", "eager"]


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a small network with fewer channels than drn_tiny, of the same kind."""
    path = tmp_path_factory.mktemp("compressed") / "small.safetensors"
    package.save(package.create_model("drn_tiny"), path)
    return path


def test_named_networks_and_files_in_several_modes(compressed, tmp_path):
    modes = ["--modes", "eager,channels_last", "--modes", "bf16"]
    sizes = [*SIZE, "--lr-size", "16x24"]
    options = ["--against", compressed, *sizes, *modes, "--runs", "2", "--threads", "1"]
    result = drc(
        "bench", "--model", "drn_tiny", *options, "--json", "--output", "out/b.json", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record == json.loads((tmp_path / "out" / "b.json").read_text())
    found = complexity(package.create_model("drn_tiny"), (16, 16))
    for row in record["networks"]:
        assert (row["params"], row["macs"], row["mac_ratio"]) == (found.params, found.macs, 1.0)
    assert [row["network"] for row in record["networks"]] == ["drn_tiny", "small"]
    assert (record["finished"], record["threads"], record["macs_lr_size"]) == (True, 1, [16, 16])
    assert (record["gpu"], record["torch"]) == (torch.cuda.is_available(), torch.__version__)
    order = [(t["lr_size"], t["mode"], t["network"]) for t in record["timings"]]
    assert order == [
        (size, mode, name)
        for size in ([16, 16], [16, 24])
        for mode in ("eager", "channels_last", "bf16")
        for name in ("drn_tiny", "small")
    ]
    for dense, small in zip(record["timings"][::2], record["timings"][1::2], strict=True):
        assert dense["speedup"] == 1 and dense["failure"] is None
        assert small["speedup"] == pytest.approx(dense["median_ms"] / small["median_ms"])


def test_the_newest_run_and_what_it_prints(finished_run: FinishedRun):
    result = drc("bench", *QUICK, "--merge", cwd=finished_run.folder)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "batch 1, median of 1 runs" in lines[0]
    assert lines[1].startswith("dense: 384,349 parameters, 0.25 G MACs at LR 16x16")
    assert lines[2].startswith("finetuned: ")
    assert (
        lines[3]
        == "note: dense: 6 linear ops became 3 convolutions, 384,361 parameters became 384,349"
    )
    header, dense, pruned = (line.split() for line in lines[-3:])
    assert header == ["LR", "mode", "network", "ms", "speed-up", "by", "MACs", "peak", "MiB"]
    assert dense[:3] == ["16x16", "eager", "dense"] and dense[4:6] == ["1.00x", "1.00x"]
    assert pruned[:3] == ["16x16", "eager", "finetuned"] and len(pruned) == 7
    assert float(pruned[5].rstrip("x")) > 1.1


def test_a_run_before_recovery_shows_its_pruned_network(finished_run: FinishedRun, tmp_path):
    run = shutil.copytree(finished_run.run, tmp_path / "run")
    (run / "finetuned.safetensors").unlink()
    result = drc("bench", "--run", run, *QUICK, "--json", cwd=tmp_path)
    names = [row["network"] for row in json.loads(result.stdout)["networks"]]
    assert names == ["dense", "pruned"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model", "drn_tiny", "--modes", "eagre"], ["eagre", "eager"]),
        (["--model", "drn_tiny", "--modes", "onxn_int8"], ["onxn_int8", "did you mean onnx_int8"]),
        (["--model", "drn_tiny", "--lr-size", "96"], ["--lr-size", "'96'", "270x480"]),
        (["--model", "drn_tiny", "--threads", "0"], ["--threads is 0"]),
        (["--model", "drn_tiny", "--run", "here"], ["--run", "--model"]),
        (["--against", "drn_tiny"], ["--against needs --model"]),
    ],
)
def test_one_line_for_what_cannot_be_used(tmp_path, arguments, parts):
    assert_one_line(drc("bench", *arguments, cwd=tmp_path), 2, *parts)


def test_a_file_that_is_not_there_is_no_network_by_name(tmp_path):
    arguments = ["--model", "drn_tiny", "--against", "none.pth", *QUICK]
    assert_one_line(drc("bench", *arguments, cwd=tmp_path), 1, "no weights file none.pth")


def test_a_mode_that_fails_is_a_line_of_the_table(tmp_path):
    arguments = ["--model", "drn_tiny", *SIZE, "--runs", "1", "--modes", "compiled,eager"]
    missing = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = drc("bench", *arguments, "--device", "cpu", cwd=tmp_path, **missing)
    assert result.returncode == 0, result.stderr
    compiled, eager = result.stdout.splitlines()[-2:]
    assert compiled.split()[:4] == ["16x16", "compiled", "drn_tiny", "-"]
    assert "compiler" in compiled and "Traceback" not in result.stderr
    assert eager.split()[4:6] == ["1.00x", "1.00x"]


def test_ctrl_c_keeps_what_was_printed(tmp_path):
    output = tmp_path / "bench.json"
    arguments = ["bench", "--model", "drn_tiny", *SIZE, "--lr-size", "128x128", "--runs", "500"]
    ready = [*arguments, "--modes", "eager", "--output", output]
    ready[ready.index("500")] = "30"
    result = interrupt(ready, tmp_path, output.exists)
    assert result.returncode == 130
    assert result.stderr.splitlines()[-1].startswith("interrupted; the figures until then")
    assert result.stdout.splitlines()[-1].split()[:3] == ["16x16", "eager", "drn_tiny"]
    record = json.loads(output.read_text())
    assert record["finished"] is False and len(record["timings"]) == 1


class Noted(nn.Module):
    """Doubles an image, and notes how it was called."""

    scale, value_range = 2, 1.0

    def __init__(self, log: list[tuple]) -> None:
        super().__init__()
        self.conv, self.log = nn.Conv2d(3, 12, 3, padding=1), log

    def __deepcopy__(self, memo: dict) -> Noted:
        twin = Noted(self.log)
        twin.load_state_dict(self.state_dict())
        return twin

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        self.log.append((tuple(x.shape[2:]), channels_last, out.dtype, self.training))
        assert not torch.is_grad_enabled()
        return nn.functional.pixel_shuffle(out, 2)


@pytest.mark.parametrize(
    ("mode", "channels_last", "kind"),
    [
        ("eager", False, torch.float32),
        ("channels_last", True, torch.float32),
        ("bf16", True, torch.bfloat16),
    ],
)
def test_modes_are_what_they_are_called(mode, channels_last, kind):
    log: list[tuple] = []
    model = Noted(log)
    shown = []
    (timings,) = bench(
        {"one": model}, [(6, 10)], [mode], runs=3, device="cpu",
        progress=lambda what, done, total, metrics: shown.append((what, done, total)),
    )  # fmt: skip
    # two of them warm up, one is watched for its memory
    assert log[-6:] == [((6, 10), channels_last, kind, False)] * 6
    assert model.training and model.conv.weight.is_contiguous()
    assert timings[0].median_ms > 0 and timings[0].peak_mib > 0
    assert shown == [(f"{mode} 6x10, warm-up", 1, 1), *((f"{mode} 6x10", i, 3) for i in (1, 2, 3))]


def test_networks_take_turns_and_one_that_fails_does_not_stop_the_others():
    class Broken(Noted):
        def __deepcopy__(self, memo: dict) -> Broken:
            return Broken(self.log)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] == 5:
                raise RuntimeError("no image of\nfive rows")
            return super().forward(x)

    networks = {"first": Noted([]), "broken": Broken([]), "last": Noted([])}
    first, second = bench(networks, [(5, 5), (6, 6)], ["eager"], runs=1, device="cpu")
    assert first[1].failure == "RuntimeError: no image of five rows"
    assert first[1].median_ms is None and first[1].speedup is None
    assert first[2].speedup == first[0].median_ms / first[2].median_ms
    assert all(timing.failure is None for timing in second)
    with pytest.raises(UsageError, match="no mode is called 'fast'"):
        bench(networks, modes=["fast"])
    with pytest.raises(UsageError, match="at least 1 run"):
        bench(networks, runs=0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_gives_the_same_images():
    model = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.PixelShuffle(2)).eval()
    image = torch.rand(1, 3, 9, 11)
    with torch.no_grad():
        outputs = {mode: TorchMode(mode).prepare(model, image)() for mode in MODES}
        expected = model(image)
    for mode, tolerance in (
        ("eager", 0),
        ("channels_last", 1e-6),
        ("compiled", 1e-6),
        ("bf16", 0.02),
    ):
        assert (outputs[mode].float() - expected).abs().max() <= tolerance, mode


def test_runtimes_of_exported_files_are_timed_beside_torch(tmp_path):
    modes = "eager,onnx,onnx_fp16"
    given = ["--model", "slwsr16", "--modes", modes, "--lr-size", "16x16", "--runs", "1"]
    done = drc("bench", *given, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    eager, onnx, half = record["timings"]
    assert half["mode"] == "onnx_fp16" and half["failure"] is None and half["median_ms"] > 0
    assert record["modes"]["onnx_fp16"] == "float16, exported by `drc export --to onnx --fp16`"
    assert (eager["mode"], onnx["mode"]) == ("eager", "onnx")
    assert onnx["failure"] is None and onnx["median_ms"] > 0
    # The widest layer of an image of 64x64 has 16 channels: the SR image alone is 0.05 MiB.
    assert 0.05 < eager["peak_mib"] < 20
    assert 0 < onnx["peak_mib"] < 100
    assert record["modes"]["onnx"] == "float32, exported by `drc export --to onnx`"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone says")
def test_memory_of_a_file_grows_with_the_image(tmp_path):
    network = package.create_model("slwsr16", weights="none")
    path = package.export(network, tmp_path / "net", to="onnx", runs=0, test=None).path
    small, large = (peak_mib("onnx", path, (1, 3, side, side)) for side in (32, 128))
    assert small is not None and large is not None
    # What is held for every pixel: at least the SR image, x4, of three channels in float32.
    assert large - small > (128**2 - 32**2) * 16 * 3 * 4 / 2**20


def test_what_is_measured_is_printed_where_the_file_cannot_be_written(tmp_path):
    arguments = ["--model", "slwsr16", *QUICK, "--json", "--output", "/proc/no/such.json"]
    result = drc("bench", *arguments, cwd=tmp_path)
    assert result.returncode == 1 and "cannot" in result.stderr.splitlines()[-1]
    assert json.loads(result.stdout)["timings"][0]["median_ms"] > 0


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGTERM")
def test_sigterm_leaves_no_file_and_no_process(tmp_path):
    (tmp_path / "temporary").mkdir()
    arguments = ["bench", "--model", "slwsr16", "--modes", "onnx", "--runs", "100000", *SIZE]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-m", "drc", *arguments]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as bench:
        deadline = time.monotonic() + 300
        while not list((tmp_path / "temporary").glob("drc-bench-*/*.onnx")):
            assert bench.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        bench.terminate()
        assert bench.wait(60) == 128 + signal.SIGTERM
        assert b"Traceback" not in bench.stderr.read()
    assert not list((tmp_path / "temporary").glob("drc-*"))


def test_memory_of_a_file_that_does_not_run_is_not_given(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    assert peak_mib("onnx", tmp_path / "broken.onnx", (1, 3, 8, 8)) is None


def test_a_network_is_exported_once_and_what_cannot_be_fails_once(monkeypatch):
    pytest.importorskip("onnxruntime")
    made = []

    def counted(*arguments, **options):
        made.append(options["to"])
        return export(*arguments, **options)

    monkeypatch.setattr("drc.exporters.backends.export", counted)
    networks = {"plain": Plain(), "bessel": Bessel()}
    with backends(["onnx"]) as others:
        first, second = bench(
            networks, [(8, 8), (12, 8)], ["onnx"], runs=1, device="cpu", others=others
        )
        assert others["onnx"].exported(networks["plain"]).bytes > 1000
    assert made == ["onnx", "onnx"]
    for plain, bessel in (first, second):
        assert plain.median_ms > 0 and "bessel_j0" in bessel.failure
        assert "--lr-size" not in bessel.failure and "rejected" not in bessel.failure


def test_every_network_has_a_file_of_its_own_though_memory_is_used_again():
    with backends(["pt2"]) as others:
        channels = [others["pt2"].exported(Plain(count)).channels for count in (1, 3, 1)]
    assert channels == [1, 3, 1]

"""Run the real command in its own process, and one finished run on tiny settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from drc.data.bundled import bundled_pairs
from drc.data.images import read_image, write_image

DRC = (sys.executable, "-m", "drc")

TINY = {
    "model": "drn_tiny",
    "weights": "none",
    "search": {"patches": 4, "patch": 16, "dual_steps": 5},
    "recovery": {"steps": 4, "batch": 2, "patch": 16, "checkpoint_every": 2, "log_every": 1},
    "report": {"lr_size": [32, 32], "runs": 1},
}


def drc(
    *arguments: str | Path, cwd: Path, timeout: float = 600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `drc arguments` in `cwd`, without a terminal and with an empty torch hub cache."""
    return subprocess.run(
        [*DRC, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "TORCH_HOME": str(cwd / "torch-home"), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def interrupt(
    arguments: list[str | Path], cwd: Path, ready: Callable[[], bool]
) -> subprocess.CompletedProcess[str]:
    """Start `drc arguments` and press Ctrl-C once `ready` returns True."""
    with (
        (cwd / "stdout").open("w+") as stdout,
        (cwd / "stderr").open("w+") as stderr,
        subprocess.Popen(
            [*DRC, *map(str, arguments)],
            cwd=cwd,
            stdout=stdout,
            stderr=stderr,
            # A shell that starts the tests in the background has them ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
    ):
        deadline = time.monotonic() + 600
        while not ready():
            assert process.poll() is None, (cwd / "stderr").read_text()
            assert time.monotonic() < deadline, "the command never got there"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    texts = ((cwd / name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(arguments, code, *texts)


def assert_one_line(
    result: subprocess.CompletedProcess[str], code: int, *parts: str, start: str = "error: "
) -> None:
    """The command failed with `code` and one line on stderr that holds every one of `parts`."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert "Traceback" not in result.stderr, result.stderr
    assert lines[-1].startswith(start), lines
    assert sum(line.startswith(start) for line in lines) == 1
    for part in parts:
        assert part in lines[-1]


def tiny_photos(folder: Path, size: int = 96) -> Path:
    """Two real photos of `size` x `size` pixels, in a new folder."""
    folder.mkdir(parents=True)
    for pair in bundled_pairs("test"):
        image = read_image(pair.hr)
        top, left = ((side - size) // 2 for side in image.shape[1:])
        write_image(folder / f"{pair.name}.png", image[:, top : top + size, left : left + size])
    return folder


@dataclass(frozen=True)
class TinyWork:
    """A folder with photos and settings that make every command quick."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "tiny.yaml"


def tiny_work(folder: Path) -> TinyWork:
    """Prepare `folder` with `photos/` and `tiny.yaml`."""
    photos = str(tiny_photos(folder / "photos"))
    settings = {**TINY, "data": {"data": photos, "test_data": photos}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return TinyWork(folder)


@pytest.fixture
def work(tmp_path: Path) -> TinyWork:
    """A fresh folder with photos and quick settings."""
    return tiny_work(tmp_path)


@dataclass(frozen=True)
class FinishedRun:
    """What the four commands printed, run one after the other, and where."""

    folder: Path
    run: Path
    printed: dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """`drc search`, `prune`, `finetune` and `report`, done once for all tests that only read."""
    work = tiny_work(tmp_path_factory.mktemp("finished"))
    printed = {"search": drc("search", "--config", work.config, cwd=work.folder)}
    for step in ("prune", "finetune", "report"):
        printed[step] = drc(step, cwd=work.folder)
    for step, result in printed.items():
        assert result.returncode == 0, f"drc {step}: {result.stderr}"
    (run,) = (work.folder / "runs").iterdir()
    return FinishedRun(work.folder, run, printed)

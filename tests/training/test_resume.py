"""Interrupted equals uninterrupted: real signals, real files, weights compared bit by bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training_worker import CHECKPOINT_EVERY, STEPS
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from drc.core.errors import DataError, RunError
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.networks.dual import DualModel
from drc.settings import RecoverySettings
from drc.training.loop import TrainingFiles, run_training
from drc.training.metrics import MetricsFile

WORKER = Path(__file__).parents[1] / "helpers" / "training_worker.py"
PATIENCE = 600
TIMES = {"seconds": 0, "patches_per_second": 0, "waiting": 0}  # differ from run to run


pytestmark = pytest.mark.usefixtures("one_thread")


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    root = str(WORKER.parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(folder), *arguments]
    return subprocess.Popen(command, env=environment)


def steps_in(folder: Path) -> list[int]:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def saved_step(folder: Path) -> int:
    return torch.load(folder / "last.ckpt", weights_only=True)["state"]["step"]


def test_killed_stopped_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    uninterrupted = start(whole)

    # The run signals itself, for on a busy machine it would outrun whoever watches it.
    at = CHECKPOINT_EVERY + 3
    killed = start(broken, f"--signal={signal.SIGKILL:d}", f"--at={at}")
    assert killed.wait(PATIENCE) == -signal.SIGKILL
    assert saved_step(broken) == CHECKPOINT_EVERY
    assert max(steps_in(broken)) == at
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')  # what a kill in the middle of a line leaves

    stopped = start(broken, "--resume", f"--signal={signal.SIGINT:d}", f"--at={at + 1}")
    assert stopped.wait(PATIENCE) == 130
    # The signal is seen at the end of the next step.
    assert saved_step(broken) == max(steps_in(broken)) == at + 2

    assert start(broken, "--resume").wait(PATIENCE) == 0
    assert uninterrupted.wait(PATIENCE) == 0
    expected = load_file(whole / "result-0.safetensors")
    actual = load_file(broken / "result-0.safetensors")
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert steps_in(broken) == steps_in(whole) == list(range(1, STEPS + 1))
    losses = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, broken)
    ]
    assert losses[0] == losses[1]


class Noisy(nn.Module):
    """Draws random numbers, keeps running statistics and has a buffer: all must be restored."""

    scale = 2
    value_range = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout2d(0.3),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + nn.functional.interpolate(x, scale_factor=2)


class Photos(Dataset[dict[str, Tensor]]):
    """Five crops, brightened at random by the generators of the process that reads them."""

    def __init__(self) -> None:
        (batch,) = crop_loader(bundled_pairs()[:1], 2, patch=8, batch=5, steps=1, seed=0)
        self.lr, self.hr = batch["lr"], batch["hr"]

    def __len__(self) -> int:
        return len(self.lr)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        light = 0.5 + 0.5 * torch.rand(())
        return {"lq": self.lr[index] * light, "gt": self.hr[index] * light}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def batches() -> list[dict[str, Tensor]]:
    torch.manual_seed(12)
    return list(DataLoader(Photos(), 2))


LOADERS: dict[str, Callable[[], Any]] = {
    "shuffled": lambda: DataLoader(Photos(), 2, shuffle=True),
    "own generator": lambda: DataLoader(Photos(), 2, shuffle=True, generator=seeded()),
    "worker": lambda: DataLoader(Photos(), 2, shuffle=True, num_workers=1),
    "list": lambda: batches(),
    "by step": lambda: (
        lambda step: crop_loader(
            bundled_pairs()[:1], 2, patch=8, batch=2, steps=9, seed=4, start=step
        )
    ),
}


def run(
    loader: Any, path: Path | None, stop_at: int = 0, resume: bool = False, **options: Any
) -> nn.Module:
    """Nine steps; at `stop_at` a real SIGINT reaches this process."""

    def progress(what: str, done: int, total: int, values: dict[str, float]) -> None:
        if done == stop_at:
            signal.raise_signal(signal.SIGINT)

    torch.manual_seed(1)
    model, teacher, dual = Noisy(), Noisy(), DualModel(2)
    given = {"steps": 9, "batch": 2, "train_dual": True, "clip": 1.0, "log_every": 4, "ema": 0.9}
    given.update(options.pop("settings", {}))
    return run_training(
        model,
        loader,
        teacher=teacher,
        dual=dual,
        settings=RecoverySettings(**given),
        device="cpu",
        seed=6,
        files=TrainingFiles(path, path and path.with_suffix(".jsonl"), resume),
        progress=progress,
        **options,
    )


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("stops", [(3,), (2, 7)])
def test_any_loader_resumes_exactly(kind: str, stops: tuple[int, ...], tmp_path: Path) -> None:
    # Three batches make one pass, so the stops fall at its end and in the middle of others.
    if kind == "worker" and len(stops) > 1:
        pytest.skip("processes are slow to start; one stop tells as much")
    expected = run(LOADERS[kind](), tmp_path / "whole.ckpt")
    path = tmp_path / "last.ckpt"
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            run(LOADERS[kind](), path, stop, resume=True)
        # The signal is seen at the end of the next step.
        assert torch.load(path, weights_only=True)["state"]["step"] == stop + 1
    actual = run(LOADERS[kind](), path, resume=True)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, actual.state_dict()[name]), name
    whole, broken = (
        [{**json.loads(x), **TIMES} for x in (tmp_path / f).read_text().splitlines()]
        for f in ("whole.jsonl", "last.jsonl")
    )
    assert whole == broken


def test_the_random_parts_matter(tmp_path: Path) -> None:
    """Otherwise the comparisons above would prove nothing."""
    first = run(LOADERS["shuffled"](), None)
    again = run(LOADERS["shuffled"](), None)
    weights = [model.body[0].weight for model in (first, again)]
    assert torch.equal(*weights)
    no_noise = run(list(DataLoader(Photos(), 2)), None)
    assert not torch.equal(weights[0], no_noise.body[0].weight)


def test_a_finished_run_gives_its_result_again(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    first = run(LOADERS["list"](), path)
    again = run([], path, resume=True)
    assert torch.equal(first.body[0].weight, again.body[0].weight)


def test_resuming_before_the_first_checkpoint_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "none.ckpt"
    resumed = run(LOADERS["list"](), path, resume=True)
    assert torch.equal(resumed.body[0].weight, run(LOADERS["list"](), None).body[0].weight)


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    def impatient() -> Iterator[dict[str, Tensor]]:
        (batch,) = list(DataLoader(Photos(), 5))
        yield batch
        signal.raise_signal(signal.SIGINT)
        time.sleep(1.1)
        signal.raise_signal(signal.SIGINT)
        yield batch

    with pytest.raises(KeyboardInterrupt):
        run(impatient(), tmp_path / "last.ckpt")
    assert not (tmp_path / "last.ckpt").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 1e-3}, "lr 0.0002 then, 0.001 now"),
        ({"steps": 12, "ema": 0.5}, "ema 0.9 then, 0.5 now; steps 9 then, 12 now"),
    ],
)
def test_other_settings_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    run(LOADERS["list"](), path)
    with pytest.raises(RunError, match=message):
        run(LOADERS["list"](), path, resume=True, settings=changes)


def test_how_often_to_write_may_change(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    run(LOADERS["list"](), path)
    run(LOADERS["list"](), path, resume=True, settings={"checkpoint_every": 5, "log_every": 3})


def test_another_network_or_teacher_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    options = {"settings": RecoverySettings(steps=1), "device": "cpu"}
    once, again = TrainingFiles(path), TrainingFiles(path, resume=True)
    model, data = Noisy(), LOADERS["list"]()
    run_training(model, data, files=once, **options)
    with pytest.raises(RunError, match="another starting network"):
        run_training(Noisy(), data, files=again, **options)
    with pytest.raises(RunError, match="no teacher then"):
        run_training(model, data, teacher=Noisy(), files=again, **options)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_corrupt_checkpoint_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(RunError, match="corrupt or no training checkpoint") as caught:
        run(LOADERS["list"](), path, resume=True)
    assert "\n" not in str(caught.value)


def test_a_truncated_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    run(LOADERS["list"](), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(RunError, match="corrupt"):
        run(LOADERS["list"](), path, resume=True)
    torch.save({"params": Noisy().state_dict()}, path)
    with pytest.raises(RunError, match="no training checkpoint"):
        run(LOADERS["list"](), path, resume=True)
    torch.save({"params": Noisy()}, path)  # a pickle of a class, which is never executed
    with pytest.raises(RunError, match="no training checkpoint"):
        run(LOADERS["list"](), path, resume=True)


def test_less_data_than_before_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    data = LOADERS["list"]()
    with pytest.raises(KeyboardInterrupt):
        run(data, path, 1)
    with pytest.raises(DataError, match="gives 1 batches, but 2 were used"):
        run(data[:1], path, resume=True)


def test_a_metrics_file_starts_empty_and_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    MetricsFile(path, 2).append({"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    MetricsFile(path, 0)
    assert path.read_text() == ""

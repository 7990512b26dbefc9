"""Two processes train as one, only the first writes, and neither outlives the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers.processes import ROOT, TORCHRUN, end_of, start_two
from helpers.training_worker import CHECKPOINT_EVERY
from safetensors.torch import load_file

from drc.training.feed import share_of

WORKER = Path(__file__).parents[1] / "helpers" / "training_worker.py"
STEPS = 80
LAUNCHERS = {
    "torchrun": TORCHRUN,
    "accelerate": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"],
}


def launch(launcher: str, folder: Path, *arguments: str) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *LAUNCHERS[launcher], str(WORKER), str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "result-0.safetensors")


def interrupt(folder: Path, rank: int, number: int) -> tuple[list[int], list[str], float]:
    """Signal one of two processes once they train; exit codes, stderr, and seconds it took."""
    processes = start_two(WORKER, folder, "--steps", str(STEPS), cwd=folder)
    metrics = folder / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") <= CHECKPOINT_EVERY + 1:
        assert all(process.poll() is None for process in processes), end_of(processes)
        time.sleep(0.02)
    processes[rank].send_signal(number)
    start = time.monotonic()
    ended = end_of(processes, timeout=300)
    codes, texts = [e.returncode for e in ended], [e.stderr for e in ended]
    return codes, texts, time.monotonic() - start


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    steps = CHECKPOINT_EVERY + 2
    options = ["--train-dual", "--steps", str(steps)]
    one = launch("accelerate", tmp_path / "one", *options)
    two = launch("torchrun", tmp_path / "two", *options)
    other = load_file(tmp_path / "two" / "result-1.safetensors")
    for name, tensor in one.items():
        assert torch.equal(two[name], other[name]), name
        torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=1e-4, msg=name)
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, steps + 1))
    # Resuming a finished run reads the one checkpoint in both.
    again = launch("torchrun", tmp_path / "two", "--resume", *options)
    assert all(torch.equal(again[name], two[name]) for name in two)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other_and_the_run_goes_on(tmp_path: Path, lost: int) -> None:
    codes, texts, seconds = interrupt(tmp_path, lost, signal.SIGKILL)
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] == 1
    assert seconds < 20
    last = texts[1 - lost].strip().splitlines()[-1]
    assert "TrainingError: another process of this job was lost at step" in last
    assert f"in {tmp_path / 'last.ckpt'} is kept; start the same command again with" in last
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state"]["step"]
    assert kept >= CHECKPOINT_EVERY and f"the checkpoint of step {kept} " in last


@pytest.mark.slow
def test_a_run_that_lost_a_process_ends_as_if_it_had_not(tmp_path: Path) -> None:
    whole, lost = tmp_path / "whole", tmp_path / "lost"
    lost.mkdir()
    interrupt(lost, 1, signal.SIGKILL)
    kept = torch.load(lost / "last.ckpt", weights_only=True)["state"]["step"]
    options = ["--steps", str(STEPS)]
    again = launch("torchrun", lost, "--resume", *options)
    expected = launch("torchrun", whole, *options)
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    steps = [json.loads(line)["step"] for line in (lost / "metrics.jsonl").open()]
    assert steps == list(range(1, STEPS + 1)) and kept < STEPS


@pytest.mark.slow
def test_sigterm_stops_both_after_a_step_with_a_checkpoint(tmp_path: Path) -> None:
    codes, texts, _ = interrupt(tmp_path, 1, signal.SIGTERM)
    assert codes == [130, 130], texts
    steps = (tmp_path / "metrics.jsonl").read_text().count("\n")
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state"]["step"]
    assert kept == steps < STEPS


def test_alone_a_batch_is_not_split() -> None:
    batch = torch.arange(5)
    assert share_of(batch, Accelerator()) is batch

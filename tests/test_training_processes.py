"""Two processes train as one, and only the first writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from training_worker import CHECKPOINT_EVERY

from drc.training.processes import share_of

WORKER = Path(__file__).with_name("training_worker.py")
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "accelerate": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"],
}


def launch(launcher: str, folder: Path, *arguments: str) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    root = str(WORKER.parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *LAUNCHERS[launcher], str(WORKER), str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "result-0.safetensors")


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


def test_alone_a_batch_is_not_split() -> None:
    batch = torch.arange(5)
    assert share_of(batch, Accelerator()) is batch

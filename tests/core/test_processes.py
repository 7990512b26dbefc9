"""Two real processes: what they tell each other, and that one plan comes of it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from helpers.processes import end_of, launch, start_two
from helpers.processes_worker import python, whole
from safetensors.torch import load_file

WORKER = Path(__file__).parents[1] / "helpers" / "processes_worker.py"


def found_in(folder: Path) -> list[dict]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_results_and_errors_reach_everyone(tmp_path):
    for ended in end_of(start_two(WORKER, "messages", tmp_path, cwd=tmp_path)):
        assert ended.returncode == 0, ended.stderr
    one, two = found_in(tmp_path)
    assert (one.pop("first"), two.pop("first")) == (True, False)
    assert one.pop("shard") == [[0, "a"], [2, "c"], [4, "e"]]
    assert two.pop("shard") == [[1, "b"], [3, "d"]]
    assert two.pop("one fails") == ["the other cannot", False]
    text, all_know = one.pop("one fails")
    assert "another process of this job " in text and not all_know
    assert one == two
    assert one["sum"] == [2, 1]
    assert one["of the first"] == [0, 1, [[0, "a"], [1, "b"]], 7]
    assert one["first fails"] == "the first cannot"
    assert one["all fail"] == ["out of reach", True]


def test_a_killed_process_ends_the_other_in_one_line(tmp_path):
    first, second = end_of(start_two(WORKER, "lost", tmp_path, cwd=tmp_path), timeout=60)
    assert second.returncode == -signal.SIGKILL
    assert first.returncode == 1
    last = first.stderr.strip().splitlines()[-1]
    assert "RunError: another process of this job was lost" in last and "--resume" in last


@pytest.mark.slow
def test_python_calls_give_both_processes_the_same_each_time(tmp_path, one_thread):
    runs = []
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        result = launch(WORKER, "python", tmp_path / name, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        runs += found_in(tmp_path / name)
    assert all(run == runs[0] for run in runs)
    same_weights(tmp_path / "once", tmp_path / "again", exact=True)
    (tmp_path / "alone").mkdir()
    alone = json.loads(json.dumps(python(tmp_path / "alone")))
    assert alone["reach"] == runs[0]["reach"]
    assert alone["plan"]["groups"] == runs[0]["plan"]["groups"]  # sums differ by rounding alone


@pytest.mark.slow
def test_compress_in_two_rounds_from_python(tmp_path, one_thread):
    (tmp_path / "alone").mkdir()
    alone = json.loads(json.dumps(whole(tmp_path / "alone")))
    result = launch(WORKER, "whole", tmp_path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    one, two = found_in(tmp_path)
    assert one == two
    assert one["report"]["after"]["params"] == alone["report"]["after"]["params"]
    # Each trains on its half of a batch, which rounds differently.
    same_weights(tmp_path, tmp_path / "alone", exact=False)


def same_weights(two: Path, alone: Path, exact: bool) -> None:
    others = load_file(two / "1.safetensors")
    expected = load_file(alone / "0.safetensors")
    for name, tensor in load_file(two / "0.safetensors").items():
        assert torch.equal(tensor, others[name]), name
        if exact:
            assert torch.equal(tensor, expected[name]), name
        else:
            torch.testing.assert_close(tensor, expected[name], rtol=1e-2, atol=1e-3, msg=name)

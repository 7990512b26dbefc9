"""Two real processes: what they tell each other, and that one plan comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.processes import end_of, launch, start_two
from helpers.processes_worker import python, whole
from safetensors.torch import load_file

WORKER = Path(__file__).parents[1] / "helpers" / "processes_worker.py"


def found_in(folder: Path) -> list[dict]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_messages_and_errors_reach_everyone(tmp_path):
    for ended in end_of(start_two(WORKER, "messages", tmp_path, cwd=tmp_path)):
        assert ended.returncode == 0, ended.stderr
    one, two = found_in(tmp_path)
    assert (one.pop("first"), two.pop("first")) == (True, False)
    assert one.pop("dealt") == [[0, "a"], [2, "c"], [4, "e"]]
    assert two.pop("dealt") == [[1, "b"], [3, "d"]]
    assert one == two
    assert one["in_order"] == [0, 1, 4, 9, 16]
    assert one["of_first"] == "from 0"
    assert one["led"] == [0, 1, [[0, "a"], [1, "b"]]]
    assert one["shared"] == [0, 1, 2]
    assert one["first fails"] == ["the first", True]
    assert one["other fails"] == ["the other", True]
    assert one["mended"] == "without: the other"
    assert one["sum"] == pytest.approx([1e9 + 4 + 1e-9, 6], rel=1e-15)
    assert one["ends"] == "out of reach"


@pytest.mark.slow
def test_python_calls_give_what_one_process_gives(tmp_path, one_thread):
    (tmp_path / "alone").mkdir()
    alone = json.loads(json.dumps(python(tmp_path / "alone")))
    result = launch(WORKER, "python", tmp_path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert found_in(tmp_path) == [alone, alone]
    assert "97.2%" in alone["reach"]
    same_weights(tmp_path, tmp_path / "alone", exact=True)


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

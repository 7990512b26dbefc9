"""What a run folder says is so, whenever a command was stopped and whatever came before it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.cli import DRC, assert_one_line, drc, tiny_photos

from drc.store.run_folder import RunFolder


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    """A copy of a finished run, beside other photos to recover on."""
    tiny_photos(tmp_path / "other", size=80)
    return shutil.copytree(finished_run.run, tmp_path / "run")


def _stopped_at_once(arguments: list[str], cwd: Path, number: signal.Signals) -> int:
    """Start `drc arguments` and send it a signal as soon as it says that its step begins."""
    process = subprocess.Popen(
        [*DRC, *arguments], cwd=cwd, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("finetune ..."):
            process.send_signal(number)
    return process.wait(60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_an_older_recovery_never_stands_in_for_a_newer_one(run, tmp_path, number):
    options = ["--data", str(tmp_path / "other"), "--overwrite"]
    straight = shutil.copytree(run, tmp_path / "straight")
    result = drc("finetune", "--run", straight, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr

    assert _stopped_at_once(["finetune", "--run", str(run), *options], tmp_path, number) != 0
    record = json.loads((run / "steps.json").read_text())["steps"]["finetune"]
    assert record["finished"] is False
    assert not (run / "finetuned.safetensors").exists()
    result = drc("finetune", "--resume", "--run", run, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    weights = [(folder / "finetuned.safetensors").read_bytes() for folder in (straight, run)]
    assert weights[0] == weights[1]
    record = json.loads((run / "steps.json").read_text())["steps"]["finetune"]
    assert record["finished"] and "other" in record["recovery"]


def test_a_finished_recovery_is_replaced_when_asked(run, tmp_path):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    result = drc("finetune", "--run", run, "--data", tmp_path / "other", cwd=tmp_path)
    assert_one_line(result, 1, "finished already", "--overwrite")
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    assert after == before


def test_the_second_command_in_a_folder_gets_one_line(run, tmp_path):
    with RunFolder(run).locked():
        result = drc("report", "--run", run, cwd=tmp_path)
    assert_one_line(result, 1, "another command is at work in", str(run))


def test_a_command_that_was_killed_leaves_no_lock(run, tmp_path):
    options = ["finetune", "--run", str(run), "--overwrite"]
    _stopped_at_once(options, tmp_path, signal.SIGKILL)
    result = drc("finetune", "--resume", "--run", run, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_pruning_without_reconstruction_refits_nothing(run, tmp_path):
    for name in ("finetuned.safetensors", "last.ckpt", "steps.json"):
        (run / name).unlink()
    record = {"format": "drc-run", "schema_version": 1, "created": "now", "kind": "compression"}
    steps = {"search": {"seconds": 1.0, "finished": True}}
    (run / "steps.json").write_text(json.dumps({**record, "steps": steps}))
    weights = []
    for option in ("--reconstruct", "--no-reconstruct"):
        result = drc("prune", option, "--run", run, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        weights.append((run / "pruned.safetensors").read_bytes())
        record = json.loads((run / "steps.json").read_text())["steps"]["prune"]
        assert record["reconstruct"] == (option == "--reconstruct")
    assert weights[0] != weights[1]


def test_a_search_that_is_finished_is_not_done_again(run, tmp_path):
    before = (run / "plan.yaml").stat().st_mtime_ns
    time.sleep(0.01)
    result = drc("search", "--resume", "--run", run, cwd=tmp_path)
    assert result.returncode == 0 and "finished already" in result.stderr, result.stderr
    assert (run / "plan.yaml").stat().st_mtime_ns == before

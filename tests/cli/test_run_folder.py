"""Run folders that cannot be used, steps out of order, and disks that refuse."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.cli import DRC, FinishedRun, assert_one_line, drc


def _copy(finished_run: FinishedRun, folder: Path, *without: str) -> Path:
    """A copy of the finished run that lacks the files `without`."""
    run = folder / "run"
    shutil.copytree(finished_run.run, run)
    for name in without:
        (run / name).unlink()
    return run


@pytest.mark.parametrize("command", ["prune", "finetune", "report"])
def test_without_a_run_the_line_says_where_to_start(tmp_path, command):
    assert_one_line(drc(command, cwd=tmp_path), 1, "drc search")


def test_a_folder_that_is_no_run(tmp_path):
    assert_one_line(
        drc("prune", "--run", tmp_path, cwd=tmp_path), 1, str(tmp_path), "not a drc run"
    )


@pytest.mark.parametrize(
    ("command", "without", "parts"),
    [
        ("finetune", ["pruned.safetensors"], ["pruned.safetensors", "drc prune"]),
        ("report", ["pruned.safetensors"], ["pruned.safetensors", "drc prune"]),
        ("prune", ["plan.yaml"], ["plan.yaml", "drc search"]),
        ("prune", [], ["already holds the recovery", "drc search"]),
    ],
)
def test_a_step_out_of_order_names_the_one_that_is_missing(
    finished_run, tmp_path, command, without, parts
):
    run = _copy(finished_run, tmp_path, *without)
    assert_one_line(drc(command, "--run", run, cwd=tmp_path), 1, *parts)


def test_a_corrupt_plan(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path, "finetuned.safetensors", "last.ckpt")
    (run / "plan.yaml").write_text("groups: [")
    assert_one_line(drc("prune", "--run", run, cwd=tmp_path), 1, "plan.yaml", "drc search")


def test_a_corrupt_pruned_network(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path)
    (run / "pruned.safetensors").write_bytes(b"\0" * 50)
    assert_one_line(drc("report", "--run", run, cwd=tmp_path), 1, "pruned.safetensors")


@pytest.mark.parametrize(
    ("settings", "part"),
    [("model: drn_s", "model drn_tiny"), ("search: {ratio: 0.5}", "search.ratio 0.3")],
)
def test_a_run_keeps_its_network_and_its_search(finished_run, tmp_path, settings, part):
    run = _copy(finished_run, tmp_path, "finetuned.safetensors", "last.ckpt")
    (tmp_path / "other.yaml").write_text(settings)
    result = drc("prune", "--run", run, "--config", "other.yaml", cwd=tmp_path)
    assert_one_line(result, 2, part)


@pytest.mark.parametrize("option", [["--importance", "magic"], ["--seed", "5"]])
def test_a_step_that_failed_leaves_the_settings_of_the_run(finished_run, tmp_path, option):
    run = _copy(finished_run, tmp_path, "finetuned.safetensors", "last.ckpt")
    before = (run / "config.yaml").read_bytes()
    result = drc("prune", "--run", run, *option, cwd=tmp_path)
    assert result.returncode in (1, 2)
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert (run / "config.yaml").read_bytes() == before


def test_an_output_that_is_taken(finished_run, work):
    arguments = ["search", "--config", work.config, "--output"]
    result = drc(*arguments, finished_run.run, cwd=work.folder)
    assert_one_line(result, 1, str(finished_run.run), "already holds a run")
    result = drc(*arguments, work.folder / "photos", cwd=work.folder)
    assert_one_line(result, 1, "photos", "not empty")
    result = drc(*arguments, work.config / "run", cwd=work.folder)
    assert_one_line(result, 1, str(work.config / "run"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_run_folder(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path, "finetuned.safetensors", "last.ckpt")
    run.chmod(0o555)
    result = drc("prune", "--run", run, cwd=tmp_path)
    run.chmod(0o755)
    assert_one_line(result, 1, str(run), "ermission denied")


def test_a_disk_that_is_full_keeps_what_was_there(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path, "finetuned.safetensors", "last.ckpt")
    before = (run / "pruned.safetensors").read_bytes()
    limit = 20_000  # bytes per file: steps.json fits, the network does not

    def full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    result = subprocess.run(
        [*DRC, "prune", "--run", str(run)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=full_disk,
    )
    assert_one_line(result, 1, "pruned.safetensors", "ile too large")
    assert (run / "pruned.safetensors").read_bytes() == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == [".lock"]


def test_a_loss_that_becomes_nan_stops_and_keeps_the_last_checkpoint(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path, "finetuned.safetensors", "last.ckpt", "metrics.jsonl")
    options = ["--lr", "1e30", "--checkpoint-every", "1", "--steps", "50"]
    result = drc("finetune", "--run", run, *options, cwd=tmp_path)
    kept = f"the checkpoint of step 1 in {run / 'last.ckpt'} is kept"
    assert_one_line(
        result, 1, "the loss became", "at step 2", kept, "a lower learning rate, delete it"
    )
    assert (run / "last.ckpt").is_file()
    assert not (run / "finetuned.safetensors").exists()


def test_a_search_that_stopped_after_fitting_its_dual_model_goes_on(finished_run, tmp_path):
    later = ("plan.yaml", "pruned.safetensors", "finetuned.safetensors", "last.ckpt")
    run = _copy(finished_run, tmp_path, *later)
    result = drc("search", "--resume", "--run", run, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (run / "plan.yaml").read_text() == (finished_run.run / "plan.yaml").read_text()


def test_resuming_with_other_settings_changes_nothing(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path)
    before = (run / "config.yaml").read_bytes()
    result = drc("finetune", "--resume", "--steps", "9", "--run", run, cwd=tmp_path)
    assert_one_line(result, 2, "recovery.steps", "drop that option")
    assert (run / "config.yaml").read_bytes() == before


def test_the_crops_of_recovery_are_not_those_of_the_search(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path, "finetuned.safetensors", "last.ckpt")
    result = drc("finetune", "--patch", "8", "--run", run, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    text = (run / "config.yaml").read_text()
    assert text.count("patch: 16") == 1 and text.count("patch: 8") == 1

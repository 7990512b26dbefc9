"""`drc compress --rounds 2`, interrupted and not, and teachers named on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.cli import TinyWork, assert_one_line, drc, interrupt

TWICE = ["--rounds", "2", "--ratio", "0.5", "--teacher", "drn_tiny", "--test-data", "none"]
FILES = ("plan.yaml", "pruned.safetensors", "finetuned.safetensors", "last.ckpt", "metrics.jsonl")


def test_two_rounds_fill_two_folders_and_one_report(work: TinyWork) -> None:
    run = work.folder / "out"
    options = ["--config", work.config, "--steps", "6", *TWICE]
    result = drc("compress", *options, "--output", run, "--json", cwd=work.folder)
    assert result.returncode == 0, result.stderr
    for folder, steps in ((run / "round1", 2), (run, 4)):
        assert all((folder / name).is_file() for name in FILES)
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == steps
    report = json.loads(result.stdout)
    assert 0.98 * 0.5 < report["after"]["params"] / report["before"]["params"] <= 0.5
    assert report["plan"]["ratio"] == 0.5
    assert report["plan"]["predicted"] == report["after"]["params"]
    assert report["data"]["recovery"].startswith("2 and 4 steps of 2 crops")
    assert report["data"]["recovery"].endswith("teacher: drn_tiny")
    assert {"round 1 search", "round 1 finetune", "search", "finetune"} <= set(report["steps"])
    assert any("two rounds" in note for note in report["notes"])


@pytest.mark.slow
@pytest.mark.parametrize("stopped_in", ["round1", "."])
def test_two_rounds_go_on_as_if_they_had_never_stopped(work: TinyWork, stopped_in: str) -> None:
    stopped, whole = work.folder / "stopped", work.folder / "whole"
    options = ["compress", "--config", work.config, "--steps", "12", *TWICE]
    ready = (stopped / stopped_in / "metrics.jsonl").exists
    result = interrupt([*options, "--output", stopped], work.folder, ready)
    assert_one_line(result, 130, f"--resume --run {stopped}", start="interrupted during finetune")
    assert (stopped / "plan.yaml").exists() == (stopped_in == ".")
    result = drc("compress", "--resume", "--run", stopped, "--rounds", "1", cwd=work.folder)
    assert_one_line(result, 2, "another rounds")
    result = drc("compress", "--resume", "--run", stopped, cwd=work.folder)
    assert result.returncode == 0, result.stderr
    assert "round 1: search" not in result.stderr
    assert drc(*options, "--output", whole, cwd=work.folder).returncode == 0
    for folder in (Path(), Path("round1")):
        files = [run / folder / "finetuned.safetensors" for run in (stopped, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_what_does_not_fit_is_told_in_one_line(work: TinyWork) -> None:
    options = ["compress", "--config", work.config]
    for more, code, part in (
        (["--teacher", "nowhere.pth"], 1, "there is no weights file"),
        (["--rounds", "2", "--ratio", "0.99"], 3, "can be reached"),
    ):
        result = drc(*options, *more, cwd=work.folder)
        assert_one_line(result, code, part)
    assert not list((work.folder / "runs").glob("*"))

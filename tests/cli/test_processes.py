"""The commands in two processes: one plan, files written once, errors told once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from helpers.cli import assert_one_line
from helpers.processes import end_of, free_port, launch, start_two
from safetensors.torch import load_file

import drc as package
from drc.store.plan import Plan

DRC = ("-m", "--", "drc")


def test_two_processes_find_the_plan_of_one(finished_run, tmp_path):
    config = finished_run.folder / "tiny.yaml"
    result = launch(*DRC, "search", "--config", config, "--output", "two", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["step"] == "search"
    assert result.stderr.count("search took") == 1
    plan, alone = (Plan.load(run / "plan.yaml") for run in (tmp_path / "two", finished_run.run))
    assert plan.groups == alone.groups
    assert plan.expected_loss == pytest.approx(alone.expected_loss, rel=1e-6)
    name = "dual.safetensors"
    assert (tmp_path / "two" / name).read_bytes() == (finished_run.run / name).read_bytes()


@pytest.mark.slow
def test_two_processes_cut_by_the_plan(finished_run, tmp_path):
    run = shutil.copytree(finished_run.run, tmp_path / "run")
    for name in ("pruned.safetensors", "finetuned.safetensors", "last.ckpt", "metrics.jsonl"):
        (run / name).unlink()
    result = launch(*DRC, "prune", "--run", run, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    shapes = [
        {name: tensor.shape for name, tensor in load_file(folder / "pruned.safetensors").items()}
        for folder in (run, finished_run.run)
    ]
    assert shapes[0] == shapes[1]


def test_a_budget_out_of_reach_ends_both_and_is_told_once(work):
    arguments = ("search", "--config", work.config, "--ratio", "0.99", "--output", "new")
    first, second = end_of(start_two("-m", "drc", *arguments, cwd=work.folder))
    assert_one_line(first, 3, "no plan removes 99.0%")
    assert second.returncode == 3
    assert second.stdout == second.stderr == ""
    assert not (work.folder / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rounds", ["1", "2"])
def test_two_processes_compress(work, rounds):
    options = ("--config", work.config, "--rounds", rounds, "--output", "out", "--json")
    result = launch(*DRC, "compress", *options, cwd=work.folder)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["recovered"] and report["after"]["params"] < report["before"]["params"]
    assert result.stderr.count("report took") == 1
    files = {path.name for path in (work.folder / "out").iterdir()}
    assert {"plan.yaml", "finetuned.safetensors", "report.json", "report.md"} <= files
    assert ("round1" in files) == (rounds == "2")


@pytest.mark.slow
def test_two_processes_recover_together_and_one_reports(finished_run, tmp_path):
    run = shutil.copytree(finished_run.run, tmp_path / "run")
    for name in ("finetuned.safetensors", "last.ckpt", "metrics.jsonl"):
        (run / name).unlink()
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--main_process_port", free_port(), "-m", "drc"]
    result = subprocess.run(
        [sys.executable, *launch, "finetune", "--run", str(run), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["step"] == "finetune"
    assert result.stderr.count("finetune took") == 1
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4
    package.load(run / "finetuned.safetensors")

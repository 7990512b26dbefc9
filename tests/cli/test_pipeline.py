"""The four commands, one after the other and as `drc compress`, on real photos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers.cli import drc

import drc as package
from drc.networks.registry import build
from drc.networks.traits import final_output
from drc.report.schema import Report
from drc.store.plan import Plan


@pytest.fixture(scope="module")
def report(finished_run) -> Report:
    return Report.model_validate_json((finished_run.run / "report.json").read_text())


def test_the_run_folder_holds_every_file(finished_run):
    names = {path.name for path in finished_run.run.iterdir()}
    assert names == {
        ".lock",
        "config.yaml",
        "dual.safetensors",
        "finetuned.safetensors",
        "images.tsv",
        "last.ckpt",
        "metrics.jsonl",
        "plan.yaml",
        "pruned.safetensors",
        "report.json",
        "report.md",
        "steps.json",
    }
    assert finished_run.run.name.startswith("drn_tiny_x4_")


def test_the_search_says_what_it_found(finished_run):
    printed = finished_run.printed["search"].stdout
    plan = Plan.load(finished_run.run / "plan.yaml")
    dense = sum(p.numel() for p in build("drn_tiny", 4).parameters())
    assert plan.budget.before == dense
    assert 0 <= plan.budget.limit - plan.budget.predicted <= 0.01 * dense
    for part in (str(plan.budget.predicted), str(dense), "plan.yaml"):
        assert part in printed
    assert "fitting one" in finished_run.printed["search"].stderr


def test_the_report_measures_before_and_after(finished_run, report):
    plan = Plan.load(finished_run.run / "plan.yaml")
    assert report.before.params == plan.budget.before
    assert report.after.params == plan.budget.predicted
    assert report.before.macs > report.after.macs > 0
    for side in (report.before, report.after):
        assert side.psnr is not None and side.psnr > 0
        assert side.ssim is not None and side.ssim <= 1
        assert side.latency_ms is not None and side.latency_ms > 0
    assert report.pruned_only.psnr is not None
    assert report.recovered
    assert {image.name for image in report.data.images} == {"chelsea", "coffee"}
    assert {"search", "prune", "finetune", "report"} <= set(report.steps)
    assert all(facts["seconds"] > 0 for facts in report.steps.values())


def test_the_report_says_in_words_that_weights_were_initial(finished_run, report):
    table = finished_run.printed["report"].stdout
    page = (finished_run.run / "report.md").read_text()
    for text in (report.weights, table, page):
        assert "initial weights" in text
        assert "mean nothing" in text


def test_the_report_says_when_test_images_were_trained_on(report):
    assert any("2 of the test images were also used" in note for note in report.notes)


def test_the_table_names_files_that_exist(finished_run, report):
    table = finished_run.printed["report"].stdout
    for path in report.files.values():
        assert (finished_run.folder / path).exists()
        assert Path(path).name in table


def test_saved_networks_reload(finished_run, report):
    lr = torch.rand(1, 3, 16, 16) * 255
    for name in ("pruned", "finetuned"):
        network = package.load(finished_run.run / f"{name}.safetensors")
        assert sum(p.numel() for p in network.parameters()) == report.after.params
        assert final_output(network(lr)).shape == (1, 3, 64, 64)


def test_logs_are_on_stderr_and_results_on_stdout(finished_run):
    for step, result in finished_run.printed.items():
        assert f"{step} took" in result.stderr
        assert "took" not in result.stdout


def test_report_json_is_pure_and_quiet_is_silent(finished_run, tmp_path):
    run = shutil.copytree(finished_run.run, tmp_path / "run")
    arguments = ["--run", run, "--json", "--quiet", "--test-data", "none"]
    result = drc("report", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    content = json.loads(result.stdout)
    assert content == json.loads((run / "report.json").read_text())
    assert content["before"]["psnr"] is None
    assert content["before"]["macs"] > content["after"]["macs"]


def test_a_report_before_recovery_says_so(finished_run, tmp_path):
    run = shutil.copytree(finished_run.run, tmp_path / "run")
    (run / "finetuned.safetensors").unlink()
    result = drc("report", "--run", run, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "after (no recovery)" in result.stdout
    assert "no recovery yet" in result.stdout


def test_compress_gives_what_the_four_commands_give(finished_run, work):
    result = drc("compress", "--config", work.config, "--json", "--output", "out", cwd=work.folder)
    assert result.returncode == 0, result.stderr
    report = Report.model_validate_json(result.stdout)
    assert report.command == "drc compress"
    assert json.loads((work.folder / "out" / "report.json").read_text()) == json.loads(
        result.stdout
    )
    for name in ("plan.yaml", "pruned.safetensors", "finetuned.safetensors"):
        ours, theirs = (folder / name for folder in (work.folder / "out", finished_run.run))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_macs_budget_and_bundled_photos(work):
    config = yaml.safe_load(work.config.read_text())
    config["data"] = {}
    work.config.write_text(yaml.safe_dump(config))
    arguments = ["--budget", "macs", "--ratio", "0.4", "--strategy", "uniform", "--json"]
    result = drc("search", "--config", work.config, *arguments, cwd=work.folder)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["budget"] == "macs"
    assert 0.4 <= found["removed"] < 0.42
    stored = yaml.safe_load((work.folder / found["run"] / "config.yaml").read_text())
    assert stored["data"]["data"] is None
    assert stored["search"]["ratio"] == 0.4

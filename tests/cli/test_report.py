"""`drc report`: pages, plots, Markdown and comparisons, through the real command."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.cli import FinishedRun, assert_one_line, drc

from drc.cli.reproduce import recipe
from drc.report.schema import Report
from drc.settings.reader import load_settings
from drc.store.plan import Plan


@pytest.fixture(scope="module")
def copied(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The finished run, copied: these tests write into it."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(finished_run.folder, folder, dirs_exist_ok=True)
    return FinishedRun(folder, folder / "runs" / finished_run.run.name, {})


def test_a_page_and_plots_are_written_beside_the_report(copied):
    pytest.importorskip("resvg_py", reason="plots need resvg")
    result = drc("report", copied.run, "--html", "--png", "--photos", "1", cwd=copied.folder)
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout
    text = (copied.run / "report.html").read_text("utf-8")
    stored = Report.model_validate_json((copied.run / "report.json").read_text())
    assert f"{stored.after.params:,}" in text
    assert text.count('class="photo"') == 1
    assert "initial weights" in text
    assert "drc finetune" in text and "settings.yaml" in text
    assert Path(stored.files["page"]).name == "report.html"
    names = sorted(path.name for path in (copied.run / "plots").iterdir())
    assert names == ["front.png", "plan.png", "training.png"]


def test_a_page_can_be_made_without_measuring_again(copied):
    moved = copied.folder / "moved"
    shutil.copytree(copied.run, moved)
    settings = yaml.safe_load((moved / "config.yaml").read_text())
    settings["data"] = {**settings["data"], "test_data": str(copied.folder / "gone")}
    (moved / "config.yaml").write_text(yaml.safe_dump(settings))
    before = (moved / "report.json").read_bytes()
    result = drc(
        "report", "--run", moved, "--html", "--no-measure", "--markdown",
        "--output", "page.html", cwd=copied.folder,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (moved / "report.json").read_bytes() == before
    page = (copied.folder / "page.html").read_text("utf-8")
    assert 'class="photo"' not in page and "no photos: " in page  # where the images are gone
    assert result.stdout.startswith("# ") and "## Widths" in result.stdout


def test_two_runs_are_compared(copied):
    other = copied.folder / "other"
    shutil.copytree(copied.run, other)
    report = json.loads((other / "report.json").read_text())
    report["data"]["test"] = "something else"
    report["after"]["psnr"] = 12.25
    (other / "report.json").write_text(json.dumps(report))
    result = drc("report", copied.run, other, "--html", "--json", cwd=copied.folder)
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert [run["name"] for run in content["runs"]] == [copied.run.name, "other"]
    assert content["runs"][1]["report"]["after"]["psnr"] == 12.25
    assert any("different test images" in note for note in content["notes"])
    page = (copied.folder / "compare.html").read_text("utf-8")
    assert "12.25" in page and "different test images" in page
    assert page.count('class="photo"') == 2  # both test photos
    sliders = page.partition('class="photo"')[2].partition('class="compare"')[0]
    for name in ("LR, nearest", "bicubic", "dense", copied.run.name, "other", "HR"):
        assert f">{name}" in sliders, name
    assert sliders.count(">dense") == 2  # once on either side of the slider: one dense network
    table = drc("report", copied.run, other, cwd=copied.folder).stdout
    assert "12.25" in table and "dense" in table
    assert not (copied.folder / "compare.html.tmp").exists()


def test_photos_that_runs_do_not_share_are_told_on_the_page(copied):
    bare, moved = copied.folder / "no_network", copied.folder / "no_images"
    for folder in (bare, moved):
        shutil.copytree(copied.run, folder)
    (bare / "finetuned.safetensors").unlink()
    settings = yaml.safe_load((moved / "config.yaml").read_text())
    settings["data"]["test_data"] = str(copied.folder / "gone")
    (moved / "config.yaml").write_text(yaml.safe_dump(settings))

    def page(*arguments: object) -> str:
        options = ("--html", "--output", "shared.html", "--device", "cpu")
        result = drc("report", *map(str, arguments), *options, cwd=copied.folder)
        assert result.returncode == 0, result.stderr
        return (copied.folder / "shared.html").read_text("utf-8")

    text = page(copied.run, bare, moved, "--photos", "1")
    assert "no photos of no_network: " in text and "no photos of no_images: " in text
    assert text.count('class="photo"') == 1  # of the run that is whole, and its dense network
    text = page(bare, moved)
    assert 'class="photo"' not in text and "no photos: " in text
    text = page(copied.run, copied.run, "--photos", "0")
    assert 'class="photo"' not in text and "no photos" not in text


def test_wrong_uses_are_told_in_one_line(copied, tmp_path):
    run, empty = copied.run, copied.folder / "bare"
    shutil.copytree(run, empty)
    (empty / "report.json").unlink()
    for arguments, code, part in (
        ((run, empty), 1, "holds no report"),
        ((run, "--no-measure", "--tile", "64"), 2, "--tile is for measuring"),
        ((run, run, "--test-data", "x"), 2, "--test-data is for measuring"),
        ((run, "--photos", "2"), 2, "pass --html"),
        ((run, run, "--photos", "2"), 2, "pass --html"),
        ((run, run, "--device", "cpu"), 2, "pass --html"),
        ((run, run, "--html", "--device", "cuda:77"), 2, "does not exist"),
        ((run, "--markdown", "--json"), 2, "two forms"),
        (("--paper", "--html"), 2, "--html is for the report of a run"),
        (("--paper", "--set", "seed=1"), 2, "--set is for the report of a run"),
        ((run, run, "--set", "seed=1"), 2, "--set is for measuring"),
        ((run, tmp_path / "none"), 1, "no run folder"),
    ):
        result = drc("report", *arguments, cwd=copied.folder)
        assert_one_line(result, code, part)


def test_the_commands_on_the_page_make_the_same_plan(copied, tmp_path):
    settings = load_settings(None, {}, yaml.safe_load((copied.run / "config.yaml").read_text()))
    again = recipe(settings)
    (tmp_path / "settings.yaml").write_text(again.settings)
    assert [line.split()[:2] for line in again.commands] == [
        ["drc", step] for step in ("search", "prune", "finetune", "report")
    ]
    # What the later commands change is stored by the first one already, or is on their lines.
    result = drc(*shlex.split(again.commands[0])[1:], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert Plan.load(run / "plan.yaml") == Plan.load(copied.run / "plan.yaml")
    options = shlex.split(again.commands[2])
    assert options[options.index("--steps") + 1] == str(settings.recovery.steps)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 7, "search": {"ratio": [0.5, 0.3], "budget": "macs"}},
         ("--ratio 0.5 --ratio 0.3", "--budget macs", "--seed 7", "prune --ratio 0.5")),
        ({"prune": {"reconstruct": False}, "recovery": {"teacher": "drn_l", "lr": 1e-3}},
         ("prune --no-reconstruct", "--teacher drn_l", "--lr 0.001")),
        ({"report": {"tile": 64, "self_ensemble": True}}, ("--tile 64", "--self-ensemble")),
    ],
)  # fmt: skip
def test_commands_name_every_setting_that_was_changed(changes, expected):
    settings = load_settings(None, {"model": "drn_s", **changes})
    again = recipe(settings)
    text = " ".join(again.commands)
    for part in expected:
        assert part in text, text
    file = yaml.safe_load(again.settings) if again.settings else {}
    assert "recovery" not in file and "search" not in file

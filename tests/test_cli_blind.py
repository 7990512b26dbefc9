"""Blurred training crops, self-ensemble and tiles, by the real commands."""

from __future__ import annotations

import json
import shutil

import yaml
from helpers.cli import FinishedRun, TinyWork, assert_one_line, drc

from drc.cli.options import overrides
from drc.config import load_settings


def _with(work: TinyWork, **data: object) -> None:
    settings = yaml.safe_load(work.config.read_text())
    settings["data"].update(data)
    work.config.write_text(yaml.safe_dump(settings))


def test_search_on_blurred_crops_says_so(work: TinyWork) -> None:
    _with(work, degradation="aniso", noise=2)
    result = drc("search", "--config", work.config, cwd=work.folder)
    assert result.returncode == 0, result.stderr
    (run,) = (work.folder / "runs").iterdir()
    steps = json.loads((run / "steps.json").read_text())["steps"]
    words = "blurred by random anisotropic 31x31 kernels, noise of 2 levels"
    assert steps["search"]["calibration"].endswith(words)
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["degradation"] == "aniso"


def test_a_shipped_dual_model_is_not_for_blurred_images(work: TinyWork) -> None:
    settings = yaml.safe_load(work.config.read_text())
    work.config.write_text(yaml.safe_dump({**settings, "weights": "default"}))
    for degradation, words in (("bicubic", "shipped with drc"), ("iso", "one was fitted")):
        _with(work, degradation=degradation)
        run = work.folder / degradation
        result = drc("search", "--config", work.config, "--output", run, cwd=work.folder)
        assert result.returncode == 0, result.stderr
        steps = json.loads((run / "steps.json").read_text())["steps"]
        assert words in steps["search"]["dual"]


def test_degradations_that_cannot_be(work: TinyWork) -> None:
    def search(*parts: str, code: int = 2, **data: object) -> None:
        _with(work, **data)
        result = drc("search", "--config", work.config, cwd=work.folder)
        assert_one_line(result, code, *parts)
        assert not (work.folder / "runs").exists() or not any((work.folder / "runs").iterdir())

    search("data.noise", "needs data.degradation to be iso or aniso", noise=2)
    search("data.degradation", "'bicubic', 'iso' or 'aniso'", noise=0, degradation="box")


def test_an_option_that_is_not_given_leaves_the_setting_alone() -> None:
    stored = {"model": "drn_s", "report": {"self_ensemble": True, "tile": 64}}
    given = {"self_ensemble": None, "tile": None}
    assert load_settings(None, overrides(given), stored).report.self_ensemble
    off = load_settings(None, overrides({"self_ensemble": False, "tile": 0}), stored).report
    assert (off.self_ensemble, off.tile) == (False, 0)


def test_report_with_self_ensemble_and_tiles(finished_run: FinishedRun, tmp_path) -> None:
    run = shutil.copytree(finished_run.run, tmp_path / "run")
    before = json.loads((run / "report.json").read_text())
    result = drc("report", "--run", run, "--self-ensemble", "--tile", "64", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["data"]["test"] == (
        before["data"]["test"] + ", self-ensemble of 8 views, in tiles of 64 with an overlap of 16"
    )
    assert report["before"]["psnr"] != before["before"]["psnr"]
    assert report["before"]["macs"] == before["before"]["macs"]
    stored = yaml.safe_load((run / "config.yaml").read_text())["report"]
    assert (stored["self_ensemble"], stored["tile"]) == (True, 64)
    wrong = drc("report", "--run", run, "--tile", "20", cwd=tmp_path)
    assert_one_line(wrong, 2, "a tile of 20 has no room", "at least 64")

"""Blurred training crops, self-ensemble and tiles: one command each, the rest without a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from helpers.cli import TinyWork, assert_one_line, drc

from drc.cli.launch import new_run, old_run
from drc.cli.options import overrides
from drc.core.errors import UsageError
from drc.settings.reader import load_settings


def _set(work: TinyWork, **settings: object) -> None:
    """Change settings of the configuration file; those of `data` one by one."""
    stored = yaml.safe_load(work.config.read_text())
    data = {**stored["data"], **settings.pop("data", {})}
    work.config.write_text(yaml.safe_dump({**stored, **settings, "data": data}))


def _run(work: TinyWork, *, report: bool = False) -> Path:
    """A run folder as `drc search` leaves it, or `drc report` before any recovery."""
    params = {"config": work.config, "output": str(work.folder / "run"), "quiet": True}
    with new_run("drc search", params) as session:
        session.compression.search()
        if report:
            session.compression.prune()
            session.compression.report()
    return work.folder / "run"


def _search_facts(run: Path) -> dict[str, str]:
    return json.loads((run / "steps.json").read_text())["steps"]["search"]


def test_search_on_blurred_crops_says_so_and_fits_a_dual_model(work: TinyWork) -> None:
    _set(work, weights="default", data={"degradation": "aniso", "noise": 2})
    result = drc("search", "--config", work.config, "--output", "run", cwd=work.folder)
    assert result.returncode == 0, result.stderr
    facts = _search_facts(work.folder / "run")
    words = "blurred by random anisotropic 31x31 kernels, noise of 2 levels"
    assert facts["calibration"].endswith(words)
    assert "one was fitted" in facts["dual"]  # the shipped one is for bicubic images
    stored = yaml.safe_load((work.folder / "run" / "config.yaml").read_text())
    assert stored["data"]["degradation"] == "aniso"


def test_search_on_bicubic_crops_takes_the_shipped_dual_model(work: TinyWork) -> None:
    _set(work, weights="default")
    facts = _search_facts(_run(work))
    assert "shipped with drc" in facts["dual"]
    assert "blurred" not in facts["calibration"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"noise": 2}, "needs a data.degradation other than bicubic"),
        ({"degradation": "box"}, "'bicubic', 'iso', 'aniso', 'nearest' or 'blur'"),
    ],
)
def test_degradations_that_cannot_be(work: TinyWork, data: dict, message: str) -> None:
    _set(work, data=data)
    result = drc("search", "--config", work.config, cwd=work.folder)
    assert_one_line(result, 2, f"data.{next(iter(data))}", message)
    assert not (work.folder / "runs").exists()


def test_an_option_that_is_not_given_leaves_the_setting_alone() -> None:
    stored = {"model": "drn_s", "report": {"self_ensemble": True, "tile": 64}}
    given = {"self_ensemble": None, "tile": None}
    assert load_settings(None, overrides(given), stored).report.self_ensemble
    off = load_settings(None, overrides({"self_ensemble": False, "tile": 0}), stored).report
    assert (off.self_ensemble, off.tile) == (False, 0)


def test_report_with_self_ensemble_and_tiles(work: TinyWork) -> None:
    run = _run(work, report=True)
    before = json.loads((run / "report.json").read_text())
    options = ("--run", run, "--self-ensemble", "--tile", "64", "--json")
    result = drc("report", *options, cwd=work.folder)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["data"]["test"] == (
        before["data"]["test"] + ", self-ensemble of 8 views, in tiles of 64 with an overlap of 16"
    )
    assert report["before"]["psnr"] != before["before"]["psnr"]
    assert report["before"]["macs"] == before["before"]["macs"]
    stored = yaml.safe_load((run / "config.yaml").read_text())["report"]
    assert (stored["self_ensemble"], stored["tile"]) == (True, 64)
    with (
        pytest.raises(UsageError, match=r"a tile of 20 has no room .*at least 64"),
        old_run("drc report", {"run": run, "tile": 20, "quiet": True}),
    ):
        pass
    assert yaml.safe_load((run / "config.yaml").read_text())["report"] == stored

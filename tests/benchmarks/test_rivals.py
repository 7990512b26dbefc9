"""The comparison script: names of methods, its result file, its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import common
from benchmarks.rivals.methods import METHODS, Method, find_method
from benchmarks.rivals.results import Results
from benchmarks.rivals.table import tables
from drc.core.errors import UsageError
from drc.settings import PruneSettings, SearchSettings

TERMS: dict[str, Any] = {"weights": "a", "recovery": {"batch": 8, "lr": 2e-4}}


def quality(psnr: float) -> dict[str, dict[str, float]]:
    return {name: {"psnr": psnr, "ssim": 0.9} for name in ("held_out", "Set5", "Set14")}


def baseline() -> dict[str, Any]:
    dense = {"params": 1000, "macs": 3 * 10**9, "quality": quality(30)}
    return {"dense": dense, "bicubic": quality(28)}


def row(seed: int, psnr: float, **more: Any) -> dict[str, Any]:
    return {
        "method": "uniform+l1",
        "ratio": 0.3,
        "seed": seed,
        "recipe": find_method("uniform+l1").recipe(),
        "params": 700,
        "macs": 2 * 10**9,
        "search": {"passes16": 4.0, "seconds": 1.5},
        "speed": {"speedup": 1.25},
        "after": {"0": quality(psnr)},
        **more,
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for result files other than that of the repository."""
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    return tmp_path


def test_methods_by_name() -> None:
    default = (SearchSettings().strategy, PruneSettings().importance)
    assert find_method("ours") == Method(*default, reconstruct=True)
    assert find_method("uniform+l2") == Method("uniform", "l2")
    assert find_method("uniform+l2+refit") == Method("uniform", "l2", reconstruct=True)
    for name in METHODS:
        assert find_method(name) == METHODS[name]


@pytest.mark.parametrize("name", ["dense+l1", "l1", "uniform+l3", "uniform+l1+l2", "refit"])
def test_a_name_that_is_no_method(name: str) -> None:
    with pytest.raises(UsageError):
        find_method(name)


def test_a_shortened_search_says_so() -> None:
    recipe = find_method("dual_darts+dual_greedy").recipe()
    assert recipe["darts_steps"] < SearchSettings().darts_steps
    assert recipe["greedy_steps"] < PruneSettings().greedy_steps


def test_rows_are_found_again_and_replaced(folder: Path) -> None:
    results = Results("rivals_x", "x", TERMS, baseline)
    results.save(row(0, 29.0))
    results.save(row(1, 29.2))
    again = Results("rivals_x", "x", TERMS, lambda: pytest.fail("measured twice"))
    assert again.head == results.head
    assert again.find(row(1, 0.0)) == row(1, 29.2)
    assert again.find(row(2, 0.0)) == row(2, 0.0)
    changed = row(1, 0.0, recipe={"strategy": "uniform", "importance": "l2"})
    assert again.find(changed) is changed
    again.save(changed)
    assert results.find(row(1, 1.0)) == row(1, 1.0)
    assert results.find(row(0, 1.0)) == row(0, 29.0)


def test_two_runs_add_to_one_file(folder: Path) -> None:
    first, second = (Results("rivals_x", "x", TERMS, baseline) for _ in range(2))
    first.save(row(0, 29.0))
    second.save(row(1, 29.2))
    assert [first.find(row(seed, 0.0))["after"]["0"]["Set5"]["psnr"] for seed in (0, 1)] == [
        29.0,
        29.2,
    ]


def test_other_terms_are_refused(folder: Path) -> None:
    Results("rivals_x", "x", TERMS, baseline).save(row(0, 29.0))
    other = {"weights": "a", "recovery": {"batch": 4, "lr": 2e-4, "ema": 0.9}}
    with pytest.raises(SystemExit, match=r"recovery.batch 8, now 4; recovery.ema None, now 0.9"):
        Results("rivals_x", "x", other, baseline)
    with pytest.raises(SystemExit, match="network x, now y"):
        Results("rivals_x", "y", TERMS, baseline)


def test_a_setting_newer_than_the_file_may_be_off(folder: Path) -> None:
    Results("rivals_x", "x", TERMS, baseline).save(row(0, 29.0))
    newer = {"weights": "a", "recovery": {**TERMS["recovery"], "features": 0.0}}
    assert Results("rivals_x", "x", newer, baseline).find(row(0, 0.0)) == row(0, 29.0)


def test_the_table_shows_means_and_deviations() -> None:
    """Seeds at 29.0 and 29.2 dB: mean 29.10, deviation of the sample 0.14."""
    failed = {**row(0, 0.0, method="uniform+l2"), "failed": "no plan"}
    result = {"network": "x", **baseline(), "rows": [row(0, 29.0), row(1, 29.2), failed]}
    *_, line, _, said = tables(result).splitlines()
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    psnr = ["29.10 ± 0.14"] * 3
    assert cells == ["uniform+l1", "30.0%", "/ 1.50", *psnr, "4.0", "1.5", "1.25", "2"]
    assert said == "- uniform+l2 at 30%: no plan"

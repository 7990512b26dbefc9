"""`drc search` for several ratios: a plan each from one look at the data, and prune picks one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from helpers.cli import TinyWork, assert_one_line, drc, tiny_work

from drc.store.plan import Plan

RATIOS = (0.5, 0.3, 0.125)
MANY = [part for ratio in RATIOS for part in ("--ratio", str(ratio))]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> TinyWork:
    """A run folder `runs/*` with a front, and what the command printed as JSON."""
    work = tiny_work(tmp_path_factory.mktemp("front"))
    result = drc("search", "--config", work.config, *MANY, "--json", cwd=work.folder)
    assert result.returncode == 0, result.stderr
    (work.folder / "printed.json").write_text(result.stdout)
    return work


def _run_of(work: TinyWork) -> Path:
    (run,) = (work.folder / "runs").iterdir()
    return run


def test_every_ratio_has_its_plan_and_the_first_is_that_of_the_run(front):
    run = _run_of(front)
    names = ["ratio_0.125.yaml", "ratio_0.30.yaml", "ratio_0.50.yaml"]
    assert sorted(path.name for path in (run / "plans").iterdir()) == names
    assert (run / "plan.yaml").read_text() == (run / "plans" / "ratio_0.50.yaml").read_text()
    search = yaml.safe_load((run / "config.yaml").read_text())["search"]
    assert (search["ratio"], search["front"]) == (0.5, [0.5, 0.3, 0.125])


def test_a_plan_is_that_of_a_search_for_it_alone(front, tmp_path):
    alone = tmp_path / "alone"
    arguments = ["--config", front.config, "--ratio", "0.3", "--output", alone]
    assert drc("search", *arguments, cwd=front.folder).returncode == 0
    assert not (alone / "plans").exists()
    expected = (alone / "plan.yaml").read_text()
    assert (_run_of(front) / "plans" / "ratio_0.30.yaml").read_text() == expected


def test_json_tells_every_plan(front):
    printed = json.loads((front.folder / "printed.json").read_text())
    assert printed["step"] == "search" and printed["missed"] == []
    assert [row["ratio"] for row in printed["plans"]] == list(RATIOS)
    for row in printed["plans"]:
        plan = Plan.load(front.folder / row["plan"])
        assert plan.budget.ratio == row["ratio"]
        assert plan.budget.predicted == row["predicted"] <= row["limit"]
        assert row["removed"] == round(1 - plan.budget.predicted / plan.budget.before, 4)
        widths = plan.groups.values()
        kept = sum(w.keep for w in widths) / sum(w.of for w in widths)
        assert row["channels_kept"] == round(kept, 4)
    losses = [row["expected_loss"] for row in printed["plans"]]
    assert losses == sorted(losses, reverse=True) and losses[-1] > 0
    assert printed["predicted"] == printed["plans"][0]["predicted"]


def test_prune_takes_another_plan_of_the_run(front, tmp_path):
    run = _run_of(front)
    plan = run / "plans" / "ratio_0.125.yaml"
    result = drc("prune", "--ratio", "0.125", "--json", cwd=front.folder)
    assert result.returncode == 0, result.stderr
    assert (run / "plan.yaml").read_text() == plan.read_text()
    assert json.loads(result.stdout)["params_after"] == Plan.load(plan).budget.predicted
    # What commands without a ratio go on with.
    assert yaml.safe_load((run / "config.yaml").read_text())["search"]["ratio"] == 0.125


def test_a_ratio_that_was_not_searched(front):
    config = (_run_of(front) / "config.yaml").read_bytes()
    result = drc("prune", "--ratio", "0.4", cwd=front.folder)
    assert_one_line(result, 2, "no plan for ratio 0.4", "0.5, 0.3, 0.125")
    assert (_run_of(front) / "config.yaml").read_bytes() == config


def test_a_list_in_the_settings_file_and_a_ratio_out_of_reach(work):
    settings = yaml.safe_load(work.config.read_text())
    settings["search"].update(ratio=[0.99, 0.3, 0.3], min_width=8)
    work.config.write_text(yaml.safe_dump(settings))
    result = drc("search", "--config", work.config, cwd=work.folder)
    assert result.returncode == 0, result.stderr
    rows = result.stdout.splitlines()
    assert rows[-1].startswith("no plan for ratio 0.99: no plan removes 99.0% of the parameters")
    header = next(i for i, row in enumerate(rows) if row.startswith("ratio  parameters  removed"))
    assert rows[header + 1].split()[0] == "0.3"
    assert rows[header + 1].split()[-1] == "plans/ratio_0.30.yaml"
    run = _run_of(work)
    assert [path.name for path in (run / "plans").iterdir()] == ["ratio_0.30.yaml"]
    assert Plan.load(run / "plan.yaml").budget.ratio == 0.3
    assert yaml.safe_load((run / "config.yaml").read_text())["search"]["ratio"] == 0.3
    result = drc("prune", "--ratio", "0.99", cwd=work.folder)
    assert_one_line(result, 2, "no plan for ratio 0.99", "those for 0.3")


def test_no_ratio_within_reach(work):
    options = ["--ratio", "0.99", "--ratio", "0.98", "--min-width", "8"]
    result = drc("search", "--config", work.config, *options, cwd=work.folder)
    assert_one_line(result, 3, "no plan removes 98.0%", "can be reached")
    assert not any((work.folder / "runs").glob("*"))


@pytest.mark.parametrize(
    ("command", "ratios", "parts"),
    [
        ("search", ["0.3", "1.5"], ["search.front.1 is 1.5", "less than 1"]),
        ("compress", ["0.3", "0.5"], ["one ratio", "drc search"]),
    ],
)
def test_ratios_that_cannot_be_used(work, command, ratios, parts):
    many = [part for ratio in ratios for part in ("--ratio", ratio)]
    result = drc(command, "--config", work.config, *many, cwd=work.folder)
    assert_one_line(result, 2, *parts)
    assert not any((work.folder / "runs").glob("*"))

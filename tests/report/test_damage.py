"""Whatever a run folder holds, a report, a page and a plot are made, or one line says why not."""

from __future__ import annotations

import copy
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.cli import FinishedRun, assert_one_line, drc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drc.core.errors import DrcError, RunError
from drc.report.compare import compare, comparison_markdown, print_comparison
from drc.report.html.page import comparison_page, page
from drc.report.html.png import save_plots
from drc.report.html.svg import axis
from drc.report.run_files import RunFiles, read_report, read_run
from drc.report.text import print_text, to_markdown
from drc.store.run_folder import RunFolder

DAMAGE = st.sampled_from(
    [None, True, False, 0, -1, 1, 10**400, 2**63, 1e308, -1e308, 1e-320, math.nan, math.inf,
     -math.inf, "", "x", "7", "[/]", "$\\frac$ $x", [], [1], [0, 0], {}, {"a": math.nan}, 0.5]
)  # fmt: skip
WHOLE = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value below `content` lies."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def damaged(draw: Callable[..., Any], content: Any) -> Any:
    """The same with some values replaced, removed or added."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(content))))
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        how = draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "remove":
            del parent[path[-1]]
        elif how == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["extra", "seconds", "step", "[/b]"]))] = draw(DAMAGE)
        else:
            parent[path[-1]] = draw(DAMAGE)
        if not content:
            break
    return content


def cut(draw: Callable[..., Any], text: bytes) -> bytes:
    """The same bytes, cut short or with some overwritten."""
    start = draw(st.integers(0, len(text)))
    rubbish = st.binary(max_size=4) | st.sampled_from(
        [b"NaN", b"[" * 5000, b"!!int ''", b"\xed\xa0"]
    )
    if draw(st.booleans()):
        return text[:start]
    return text[:start] + draw(rubbish) + text[start + draw(st.integers(0, 8)) :]


@pytest.fixture(scope="module")
def whole(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A copy of the finished run with plans for several ratios."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(finished_run.run, folder)
    run = RunFolder(folder)
    plan = yaml.safe_load(run.plan_path.read_text())
    run.plans_path.mkdir(exist_ok=True)
    for ratio in (0.3, 0.5):
        plan["budget"]["ratio"] = ratio
        run.plan_of_ratio(ratio).write_text(yaml.safe_dump({**plan, "expected_loss": ratio}))
    return run


@pytest.fixture(scope="module")
def other(whole: RunFolder) -> RunFiles:
    return read_run(whole, read_report(whole))


@pytest.fixture
def run(whole: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(whole.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def everything(run: RunFolder, other: RunFiles, plots: Path | None = None) -> None:
    """Make of a run all that `drc report` can make without the networks."""
    try:
        files = read_run(run, read_report(run))
    except DrcError as error:
        assert str(run.path) in str(error) and "\n" not in str(error)
        return
    found = compare([files, other], [str(run.path), "runs/other"])
    texts = [
        page(files), comparison_page(found), to_markdown(files.report), comparison_markdown(found),
        found.to_json(), files.report.to_json(),
    ]  # fmt: skip
    print_text(files.report, io.StringIO())
    print_comparison(found, io.StringIO())
    for text in texts:
        text.encode()
    for drawing in re.findall(r"<svg.*?</svg>", texts[0] + texts[1], re.DOTALL):
        numbers = re.findall(r' (?:x|y|cx|cy|width|height|points|d)="([^"]*)"', drawing)
        assert not [n for n in numbers if "nan" in n or "inf" in n]
    for text in texts[4:]:
        json.loads(text, parse_constant=pytest.fail)
    if plots is not None:
        save_plots([files], plots)
        save_plots([files, other], plots)


@given(data=st.data())
@settings(max_examples=80, **WHOLE)
def test_reports_with_damaged_values(data, run, whole, other):
    content = json.loads(whole.report_path.read_text())
    run.report_path.write_text(json.dumps(damaged(data.draw, content)))
    everything(run, other)


@given(data=st.data())
@settings(max_examples=50, **WHOLE)
def test_reports_with_damaged_bytes(data, run, whole, other):
    run.report_path.write_bytes(cut(data.draw, whole.report_path.read_bytes()))
    everything(run, other)


@given(data=st.data())
@settings(max_examples=50, **WHOLE)
def test_metrics_that_are_damaged(data, run, whole, other):
    lines = whole.metrics_path.read_bytes().splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    if data.draw(st.booleans()):
        lines[place] = json.dumps(damaged(data.draw, json.loads(lines[place]))).encode()
    else:
        lines[place] = cut(data.draw, lines[place])
    run.metrics_path.write_bytes(b"\n".join(lines))
    everything(run, other)


@given(data=st.data())
@settings(max_examples=50, **WHOLE)
def test_plans_that_are_damaged(data, run, whole, other):
    for good in (whole.plan_path, whole.plan_of_ratio(0.3)):
        bad = run.path / good.relative_to(whole.path)
        if data.draw(st.booleans()):
            content = damaged(data.draw, yaml.safe_load(good.read_text()))
            bad.write_text(yaml.safe_dump(content))
        else:
            bad.write_bytes(cut(data.draw, good.read_bytes()))
    everything(run, other)


@given(data=st.data())
@settings(max_examples=20, **WHOLE)
def test_plots_of_what_can_be_read(data, run, whole, other, tmp_path):
    pytest.importorskip("resvg_py", reason="plots need resvg")
    content = json.loads(whole.report_path.read_text())
    content["model"] = data.draw(st.sampled_from(["$\\frac$ $x", "[/]", "drn_tiny"]))
    for side in ("before", "after"):
        content[side]["psnr"] = data.draw(st.sampled_from([None, 0, 30.0, 1000.0]))
        content[side]["latency_ms"] = data.draw(st.sampled_from([None, 1e-320, 1e12, 5.0]))
    run.report_path.write_text(json.dumps(content))
    everything(run, other, tmp_path / "plots")


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("before.psnr", math.nan, "before.psnr"),
        ("after.latency_ms", 0, "after.latency_ms: input should be greater than 0"),
        ("before.params", 0, "before.params: input should be greater than or equal to 1"),
        ("after.macs", -5, "after.macs"),
        ("after.params", "many", "after.params: input should be a valid integer"),
        ("before.ssim", math.inf, "before.ssim"),
        ("plan.ratio", 1.5, "plan.ratio"),
        ("plan.groups.extra", [8, 4], "extra keeps 8 of 4 channels"),
        ("steps.search.seconds", "long", "the seconds of search are no time"),
        ("schema_version", 2, "update drc"),
        ("schema_version", 0, "no schema_version that drc knows"),
    ],
)
def test_each_kind_of_damage_is_told_by_its_place(run, where, value, words):
    content = json.loads(run.report_path.read_text())
    *parents, last = where.split(".")
    target = content
    for name in parents:
        target = target[name]
    target[last] = value
    run.report_path.write_text(json.dumps(content))
    with pytest.raises(RunError) as told:
        read_report(run)
    assert words in str(told.value) and str(run.report_path) in str(told.value)


@pytest.mark.parametrize("options", [("--no-measure",), ("--no-measure", "--html"), ("{other}",)])
def test_the_command_says_it_in_one_line(run, whole, options):
    text = run.report_path.read_text()
    run.report_path.write_text(text[: len(text) // 2])
    arguments = [option.format(other=whole.path) for option in options]
    result = drc("report", run.path, *arguments, cwd=run.path.parent)
    assert_one_line(result, 1, str(run.report_path), "is damaged", "drc report --run")


def test_lines_lost_in_the_middle_of_the_metrics_are_told(run):
    lines = run.metrics_path.read_text().splitlines()
    run.metrics_path.write_text("\n".join([lines[0], lines[1][:9], *lines[2:], lines[-1][:9]]))
    files = read_run(run, read_report(run))
    assert len(files.metrics) == len(lines) - 1
    (problem,) = files.problems
    assert f"lack 1 of {len(lines) + 1} lines" in problem and str(run.metrics_path) in problem


def test_a_damaged_record_of_the_steps_is_told(run):
    for facts in ({"seconds": "long"}, {"seconds": math.nan}, {"calibration": 5}):
        record = json.loads(run.steps_path.read_text())
        record["steps"]["search"] = facts
        run.steps_path.write_text(json.dumps(record))
        with pytest.raises(RunError, match="is damaged"):
            run.read_steps()


@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_every_finite_value_lies_on_its_axis(values):
    found = axis(values, 0.0, 100.0)
    assert found.low < found.high and len(found.ticks) <= 12
    assert all(-1e-6 <= found(value) <= 100 + 1e-6 for value in values)

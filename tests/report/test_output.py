"""The report as JSON, as a table and as Markdown, from figures that are given."""

from __future__ import annotations

import io
import json

import pytest

from drc.report.schema import (
    Counters,
    DataUsed,
    ImageQuality,
    LatencyConditions,
    PlanSummary,
    Quality,
    Report,
    Side,
)
from drc.report.table import Table, console, difference, figure, giga, relative
from drc.report.text import print_text, summary, title, to_markdown


@pytest.fixture
def report() -> Report:
    return Report(
        created="2024-05-01T12:00:00+00:00",
        command="drc report",
        versions={"drc": "0.1.0"},
        model="drn_s",
        scale=4,
        weights="file /data/drn_s.pt",
        before=Side(params=4_804_065, macs=109_810_000_000, psnr=32.68, ssim=0.901, latency_ms=900),
        after=Side(params=3_116_637, macs=72_120_000_000, psnr=32.66, ssim=0.8999, latency_ms=630),
        pruned_only=Quality(psnr=28.5, ssim=0.81),
        recovered=True,
        lr_size=(96, 96),
        counters=Counters(macs="fvcore 0.1.5", thop_macs=(109_000_000_000, 71_000_000_000)),
        latency=LatencyConditions(runs=5, device="cpu", threads=2),
        data=DataUsed(
            calibration="64 crops",
            recovery="300 steps",
            test="Set5",
            images=[ImageQuality(name="a|b", psnr_before=32.0, psnr_after=31.9)],
        ),
        plan=PlanSummary(
            strategy="allocate",
            importance="dual_taylor",
            budget="params",
            ratio=0.35,
            limit=3_120_000,
            predicted=3_116_637,
            groups={"down.0": (12, 16)},
        ),
        steps={"search": {"seconds": 10.25}, "prune": {"seconds": 1.5}, "finetune": {}},
        files={"pruned network": "/runs/drn_s/pruned.safetensors"},
        notes=["dual model: fitted in 200 steps"],
    )


def _table(report: Report) -> str:
    stream = io.StringIO()
    print_text(report, stream)
    return stream.getvalue()


def test_json_has_before_and_after_at_the_top(report):
    content = json.loads(report.to_json())
    assert content["schema_version"] == 1
    for side in ("before", "after"):
        assert list(content[side]) == ["params", "macs", "psnr", "ssim", "latency_ms"]
    assert content["after"]["params"] == 3_116_637
    assert Report.model_validate(content) == report


def test_facts_without_bound_are_null_in_json(report):
    endless = report.model_copy(update={"steps": {"search": {"loss": float("inf")}}})
    assert json.loads(endless.to_json())["steps"]["search"]["loss"] is None


def test_a_name_that_looks_like_markup_stays_text(report):
    named = report.model_copy(update={"model": "[/odd]", "steps": {"[/x]": {"seconds": 1}}})
    assert "[/odd] x4" in _table(named) and "[/x]" in _table(named)


def test_rows_hold_the_figures_and_their_changes(report):
    found = {name: tuple(cells) for name, *cells in summary(report).rows}
    assert found == {
        "parameters": ("4,804,065", "3,116,637", "3,116,637", "-35.1%"),
        "MACs (LR 96x96)": ("109.81 G", "72.12 G", "72.12 G", "-34.3%"),
        "PSNR (dB)": ("32.68", "28.50", "32.66", "-0.02"),
        "SSIM": ("0.9010", "0.8100", "0.8999", "-0.0011"),
        "latency (ms, LR 96x96)": ("900.0", "-", "630.0", "-30.0%"),
    }


@pytest.mark.parametrize("render", [_table, to_markdown])
def test_text_forms_hold_everything_a_reader_needs(report, render):
    text = render(report)
    for part in (
        "of the parameters removed (35% asked)",
        "4,804,065",
        "after recovery",
        "28.50",
        "file /data/drn_s.pt",
        "allocate, channels ranked by dual_taylor",
        "median of 5 interleaved runs, cpu, 2 threads",
        "fvcore 0.1.5; thop counts 109.00 G and 71.00 G",
        "10.2 s",
        "11.8 s",
        "/runs/drn_s/pruned.safetensors",
        "dual model: fitted in 200 steps",
    ):
        assert part in text


@pytest.mark.parametrize("render", [_table, to_markdown])
def test_figures_that_were_not_measured_show_a_dash(report, render):
    bare = Side(params=10, macs=20)
    text = render(
        report.model_copy(
            update={
                "before": bare,
                "after": bare,
                "pruned_only": Quality(),
                "latency": None,
                "recovered": False,
                "data": DataUsed(calibration="c", recovery="not run", test="nothing"),
            }
        )
    )
    assert "after (no recovery)" in text
    assert "None" not in text
    assert "nan" not in text


def test_a_bar_in_a_name_does_not_break_the_markdown_table(report):
    (line,) = [
        line for line in to_markdown(report).splitlines() if "a\\|b" in line and "31.90" in line
    ]
    assert line.replace("\\|", "").count("|") == 7


def test_long_paths_stay_in_one_piece_in_the_table(report):
    path = "/runs/" + "long" * 60 + "/pruned.safetensors"
    assert path in _table(report.model_copy(update={"files": {"pruned network": path}}))


def test_the_title_tells_what_the_budget_counts(report: Report) -> None:
    assert title(report) == "drn_s x4: 35.1% of the parameters removed (35% asked)"
    plan = report.plan.model_copy(update={"budget": "latency", "ratio": 0.3})
    timed = report.model_copy(update={"plan": plan})
    assert title(timed) == "drn_s x4: 30.0% of the latency removed (30% asked)"
    after = report.after.model_copy(update={"latency_ms": None})
    untimed = timed.model_copy(update={"after": after})
    assert title(untimed) == "drn_s x4: 34.3% of the MACs removed (30% asked)"


def test_a_table_is_the_same_in_markdown_and_on_a_terminal() -> None:
    table = Table(("name", "count", "why"), [("a|b", "1", "[/odd]")], "title", align="lrl")
    assert table.markdown().splitlines() == [
        "| name | count | why |",
        "| --- | ---: | --- |",
        "| a\\|b | 1 | [/odd] |",
    ]
    stream = io.StringIO()
    console(stream).print(table.rich())
    for part in ("title", "a|b", "[/odd]"):
        assert part in stream.getvalue()


def test_figures_and_changes_that_are_not_known_show_a_dash() -> None:
    assert (figure(None, 2), relative(None, 1), relative(0, 1), difference(1, None, 2)) == (
        "-",
    ) * 4
    assert (figure(1234.5, 1), relative(4, 3), giga(1_500_000)) == ("1,234.5", "-25.0%", "1.50 M")
    assert difference(30.004, 30.006, 2) == "+0.01"  # of the figures as shown

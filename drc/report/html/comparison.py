"""The page that compares several runs."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from drc import __version__
from drc.report.compare import HEADINGS, Comparison, image_rows, table_rows
from drc.report.html.charts import line_chart, plan_chart, scatter_chart
from drc.report.html.page import Chart, Group, environment, groups
from drc.report.html.render import render
from drc.report.points import quality_charts
from drc.report.schema import Report


@dataclass(frozen=True)
class RunView:
    """What the page shows of one run alone."""

    name: str
    report: Report
    plan: Markup
    groups: list[Group]
    environment: list[tuple[str, str]]


def comparison_page(found: Comparison) -> str:
    """The HTML text of `compare.html`."""
    runs = found.runs
    views = [
        RunView(
            run.name,
            run.report,
            plan_chart(run.report.plan.groups),
            groups(run.report),
            [("folder", folder), *environment(run.report)],
        )
        for run, folder in zip(runs, found.folders, strict=True)
    ]
    losses = {
        run.name if len(run.curves) == 1 else f"{run.name}, {curve.title}": curve.series("loss")
        for run in runs
        for curve in run.curves
    }
    losses = {name: line for name, line in losses.items() if line}
    return render(
        "compare.html",
        title=f"{len(runs)} runs compared: {', '.join(dict.fromkeys(map(_network, views)))}",
        headings=HEADINGS,
        rows=list(table_rows(runs)),
        notes=found.notes,
        front=[Chart(chart.title, scatter_chart(chart)) for chart in quality_charts(runs)],
        losses=[Chart("loss of the recovery", line_chart(losses, "loss", "loss"))]
        if losses
        else [],
        runs=views,
        image_headings=("image", *(run.name for run in runs)),
        images=list(image_rows(runs)),
        version=__version__,
    )


def _network(view: RunView) -> str:
    return f"{view.report.model} x{view.report.scale}"


__all__ = ["comparison_page"]

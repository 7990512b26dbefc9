"""The page that compares several runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from drc import __version__
from drc.report.compare import HEADINGS, Comparison, image_rows, table_rows
from drc.report.gallery import Photo
from drc.report.html.charts import Chart, line_chart, plan_chart
from drc.report.html.front import front
from drc.report.html.page import Group, environment, groups
from drc.report.html.pictures import view
from drc.report.html.render import render
from drc.report.points import Lines, quality_charts
from drc.report.run_files import RunFiles
from drc.report.schema import Report


@dataclass(frozen=True)
class RunView:
    """What the page shows of one run alone."""

    name: str
    report: Report
    plan: Markup
    groups: list[Group]
    environment: list[tuple[str, str]]


def comparison_page(
    found: Comparison, photos: Sequence[Photo] = (), photo_problems: Sequence[str] = ()
) -> str:
    """The HTML text of `compare.html`.

    Args:
        found: the runs.
        photos: the test images that they share through their networks.
        photo_problems: why photos are missing, a sentence each.
    """
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
    return render(
        "compare.html",
        title=f"{len(runs)} runs compared: {', '.join(dict.fromkeys(map(_network, views)))}",
        headings=HEADINGS,
        rows=list(table_rows(runs)),
        notes=[*found.notes, *photo_problems],
        front=front(quality_charts(runs)),
        losses=[Chart(chart.title, line_chart(chart)) for chart in _losses(runs)],
        runs=views,
        photos=[view(photo) for photo in photos],
        image_headings=("image", *(run.name for run in runs)),
        images=list(image_rows(runs)),
        version=__version__,
    )


def _losses(runs: Sequence[RunFiles]) -> Iterator[Lines]:
    lines = {
        run.name if len(run.curves) == 1 else f"{run.name}, {curve.title}": curve.series("loss")
        for run in runs
        for curve in run.curves
    }
    drawn = {name: line for name, line in lines.items() if line}
    if drawn:
        yield Lines("loss of the recovery", "loss", drawn)


def _network(view: RunView) -> str:
    return f"{view.report.model} x{view.report.scale}"


__all__ = ["comparison_page"]

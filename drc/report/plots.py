"""The charts of the page as PNG files, by matplotlib (an extra)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drc.artifacts.atomic import atomic_write
from drc.errors import UsageError
from drc.report.points import SHARES, Scatter, plan_front, quality_charts, share
from drc.report.run_files import RunFiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#cc4e00", "#d08700", "#2f93d0", "#0a5fa8", "#7d8796")
_MARKS = {
    "dense": ("s", _COLOURS[4]),
    "pruned": ("^", _COLOURS[0]),
    "after": ("D", _COLOURS[3]),
    "plan": ("o", _COLOURS[2]),
    "chosen": ("D", _COLOURS[3]),
}
_TERMS = {"loss": "-", "primal": "--", "distill": ":", "features": "-.", "dual": (0, (9, 2, 2, 2))}


def require_matplotlib() -> None:
    """Raise UsageError unless matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("plots need matplotlib: pip install 'drc-sr[plots]', or leave --png out")


def save_plots(runs: Sequence[RunFiles], folder: Path) -> list[Path]:
    """Write `front.png` and, of a single run, `plan.png` and `training.png`.

    A plot without data is left out.

    Returns:
        The files that were written.

    Raises:
        UsageError: matplotlib is not installed.
        RunError: a file cannot be written.
    """
    require_matplotlib()
    written = []
    for name, figure in _figures(runs):
        path = folder / name
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=150)
        written.append(path)
    return written


def _figures(runs: Sequence[RunFiles]) -> Iterator[tuple[str, Figure]]:
    if len(runs) == 1:
        yield "plan.png", _plan(runs[0])
    front = plan_front(runs[0]) if len(runs) == 1 else None
    charts = ([front] if front else []) + quality_charts(runs)
    if charts:
        figure, axes = _figure(len(charts))
        for place, chart in zip(axes, charts, strict=True):
            _scatter(place, chart, joined=chart is front)
        yield "front.png", figure
    curves = runs[0].curves if len(runs) == 1 else []
    if curves:
        figure, axes = _figure(len(curves))
        for place, curve in zip(axes, curves, strict=True):
            for term, dashes in _TERMS.items():
                line = curve.series(term)
                if any(value for _, value in line):
                    place.plot(*zip(*line, strict=True), linestyle=dashes, label=term)
            place.set(title=curve.title, xlabel="steps", ylabel="loss")
            place.legend(frameon=False)
        yield "training.png", figure


def _figure(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with plots in a row. It has no part in pyplot's state or windows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * count, 4), layout="constrained")
    found = figure.subplots(1, count, squeeze=False)
    for place in found[0]:
        place.grid(color="#e6eaf0")
        place.set_axisbelow(True)
        place.spines[["top", "right"]].set_visible(False)
    return figure, list(found[0])


def _plan(run: RunFiles) -> Figure:
    from matplotlib.patches import Patch

    figure, (axes,) = _figure(1)
    groups = run.report.plan.groups
    figure.set_size_inches(max(6.0, 0.18 * len(groups)), 4)
    keep, of = zip(*groups.values(), strict=True)
    places = range(len(groups))
    colours = [_COLOURS[share(*widths)] for widths in groups.values()]
    axes.bar(places, of, color="#e3e7ee", edgecolor="#7d8796", linewidth=0.5)
    axes.bar(places, keep, color=colours)
    axes.set_xticks(list(places), list(groups), rotation=90, fontsize=6)
    axes.set(ylabel="channels", title=f"{run.report.model} x{run.report.scale}: channels kept")
    used = sorted({share(*widths) for widths in groups.values()})
    axes.legend(
        handles=[Patch(color=_COLOURS[n], label=SHARES[n]) for n in used], frameon=False, ncols=5
    )
    return figure


def _scatter(axes: Axes, chart: Scatter, joined: bool) -> None:
    if joined:
        xs, ys = [p.x for p in chart.points], [p.y for p in chart.points]
        axes.plot(xs, ys, "--", color=_COLOURS[4], linewidth=1, zorder=1)
    for point in chart.points:
        mark, colour = _MARKS[point.kind]
        axes.scatter(point.x, point.y, marker=mark, color=colour, zorder=2)
        axes.annotate(
            point.label, (point.x, point.y), xytext=(6, 5), textcoords="offset points", fontsize=8
        )
    axes.margins(0.2)
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)


__all__ = ["require_matplotlib", "save_plots"]

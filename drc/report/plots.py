"""The charts of the page as PNG files, by matplotlib (an extra)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from drc.core.errors import UsageError
from drc.core.files import atomic_write, write_errors
from drc.report.labels import Box, Label, beside, place_labels
from drc.report.points import (
    KINDS,
    SHARES,
    Kind,
    Lines,
    Point,
    Scatter,
    plan_front,
    quality_charts,
    share,
    training_charts,
)
from drc.report.run_files import RunFiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#cc4e00", "#d08700", "#2f93d0", "#0a5fa8", "#7d8796")
_MARKS: dict[Kind, tuple[str, str]] = {
    "dense": ("s", _COLOURS[4]),
    "pruned": ("^", _COLOURS[0]),
    "after": ("D", _COLOURS[3]),
    "plan": ("o", _COLOURS[2]),
    "chosen": ("D", _COLOURS[3]),
}
_DASHES = ("-", "--", ":", "-.", (0, (9, 2, 2, 2)), (0, (1, 4)))
_POINTS = 72 / 100  # of a pixel: figures are drawn at 100 dots per inch, and saved larger
_LETTER, _LINE = 6.4, 13.0  # pixels: width of a letter, about, and height of a line of text


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
        with atomic_write(path) as temporary, write_errors(path):
            figure.savefig(temporary, dpi=150)
        written.append(path)
    return written


def _figures(runs: Sequence[RunFiles]) -> Iterator[tuple[str, Figure]]:
    if len(runs) == 1 and runs[0].report.plan.groups:
        yield "plan.png", _plan(runs[0])
    front = plan_front(runs[0]) if len(runs) == 1 else None
    charts = ([front] if front else []) + quality_charts(runs)
    if charts:
        yield "front.png", _fronts(charts, front)
    curves = runs[0].curves if len(runs) == 1 else []
    drawings = [training_charts(curve) for curve in curves]
    if any(drawings):
        figure, grid = _figure(max(map(len, drawings)), len(drawings))
        for row, lines in zip(grid, drawings, strict=True):
            for place in row[len(lines) :]:
                place.remove()
            for place, chart in zip(row, lines, strict=False):
                _lines(place, chart)
        yield "training.png", figure


def _figure(columns: int, rows: int = 1) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows of plots. It has no part in pyplot's state or windows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 4 * rows), layout="constrained")
    found = figure.subplots(rows, columns, squeeze=False)
    for place in found.flat:
        place.grid(color="#e6eaf0")
        place.set_axisbelow(True)
        place.spines[["top", "right"]].set_visible(False)
    return figure, [list(row) for row in found]


def _lines(axes: Axes, chart: Lines) -> None:
    for (name, line), dashes in zip(chart.series.items(), cycle(_DASHES)):
        axes.plot(*zip(*line, strict=True), linestyle=dashes, label=name)
    axes.set(title=chart.title, xlabel="steps", ylabel=chart.y_label)
    axes.legend(frameon=False)


def _plan(run: RunFiles) -> Figure:
    from matplotlib.patches import Patch

    figure, ((axes,),) = _figure(1)
    groups = run.report.plan.groups
    figure.set_size_inches(max(6.0, 0.18 * len(groups)), 4)
    keep, of = zip(*groups.values(), strict=True)
    places = range(len(groups))
    colours = [_COLOURS[share(*widths)] for widths in groups.values()]
    axes.bar(places, of, color="#e3e7ee", edgecolor="#7d8796", linewidth=0.5)
    axes.bar(places, keep, color=colours)
    axes.set_xticks(list(places), list(groups), rotation=90, fontsize=6, parse_math=False)
    axes.set(ylabel="channels")
    title = f"{run.report.model} x{run.report.scale}: channels kept"
    axes.set_title(title, parse_math=False)  # a name is not a formula
    used = sorted({share(*widths) for widths in groups.values()})
    axes.legend(
        handles=[Patch(color=_COLOURS[n], label=SHARES[n]) for n in used], frameon=False, ncols=5
    )
    return figure


def _fronts(charts: Sequence[Scatter], joined: Scatter | None) -> Figure:
    """The charts in a row; where labels do not fit, numbers, and a key below."""
    figure, (row,) = _figure(len(charts))
    for axes, chart in zip(row, charts, strict=True):
        _points(axes, chart, chart is joined)
    kinds = {point.label: point.kind for chart in charts for point in chart.points}
    labels = [[point.label for point in chart.points] for chart in charts]
    figure.draw_without_rendering()  # only then the places of points are known
    near = all(_places(*found, near=True) for found in zip(row, charts, labels, strict=True))
    if not near:
        order = list(dict.fromkeys(label for found in labels for label in found))
        _key(figure, [(kinds[label], f"{n}  {label}") for n, label in enumerate(order, 1)])
        labels = [[str(order.index(label) + 1) for label in found] for found in labels]
    else:
        _key(figure, [(kind, text) for kind, text in KINDS.items() if kind in kinds.values()])
    figure.draw_without_rendering()  # the key has taken some room
    places = [_places(*found, near=near) for found in zip(row, charts, labels, strict=True)]
    for axes, chart, texts, found in zip(row, charts, labels, places, strict=True):
        found = found or beside(_pixels(axes, chart.points))
        for point, text, place in zip(chart.points, texts, found, strict=True):
            _annotate(axes, point, text, place)
    return figure


def _points(axes: Axes, chart: Scatter, joined: bool) -> None:
    if joined:
        xs, ys = [p.x for p in chart.points], [p.y for p in chart.points]
        axes.plot(xs, ys, "--", color=_COLOURS[4], linewidth=1, zorder=1)
    for point in chart.points:
        mark, colour = _MARKS[point.kind]
        axes.scatter(point.x, point.y, marker=mark, color=colour, edgecolor="white", zorder=2)
    axes.margins(0.2)
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)


def _pixels(axes: Axes, points: Sequence[Point]) -> list[tuple[float, float]]:
    return [tuple(axes.transData.transform((p.x, p.y))) for p in points]


def _places(axes: Axes, chart: Scatter, texts: Sequence[str], near: bool) -> list[Label] | None:
    """Where the labels go, in pixels from the lower left."""
    left, low, right, high = axes.bbox.extents
    widths = [_LETTER * len(text) for text in texts]
    return place_labels(
        _pixels(axes, chart.points), widths, _LINE, Box(left, low, right, high), near=near
    )


def _annotate(axes: Axes, point: Point, text: str, place: Label) -> None:
    ((x, y),) = _pixels(axes, [point])
    axes.annotate(
        text,
        (point.x, point.y),
        xytext=((place.x - x) * _POINTS, (place.y - y) * _POINTS),
        textcoords="offset points",
        ha={"start": "left", "middle": "center", "end": "right"}[place.anchor],
        va="center",
        fontsize=8,
        parse_math=False,  # a name is not a formula
        arrowprops={"arrowstyle": "-", "color": _COLOURS[4], "lw": 0.6} if place.apart else None,
        in_layout=False,
    )


def _key(figure: Figure, entries: Sequence[tuple[Kind, str]]) -> None:
    """What the marks mean, below the charts."""
    from matplotlib.lines import Line2D

    handles = []
    for kind, text in entries:
        mark, colour = _MARKS[kind]
        label = text.replace("$", r"\$")  # a name is not a formula
        handles.append(Line2D([], [], linestyle="", marker=mark, color=colour, label=label))
    letters = max(len(text) for _, text in entries) + 6
    columns = max(1, int(figure.bbox.width / (_LETTER * letters)))
    figure.legend(
        handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize=8
    )


__all__ = ["require_matplotlib", "save_plots"]

"""The charts as SVG, for the page and for PNG files; colours come from a style sheet, by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from drc.report.html.labels import Box, Label, arrange_labels, beside
from drc.report.html.points import KINDS, SHARES, Kind, Lines, Scatter, share
from drc.report.html.svg import Axis, axis, element, frame, number, picture, rulers

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 28, 44
_MOST_STEPS = 400  # points of a line
_LETTER, _LINE = 7.4, 14.0  # width of a letter, about, and height of a line of text
_SHORT, _STYLES = 12, 6  # letters of a name in a column of the key; kinds of lines in charts.css


@dataclass(frozen=True)
class Chart:
    """A drawing with its heading, and its size in pixels."""

    title: str
    drawing: Markup
    width: float = _WIDTH
    height: float = _HEIGHT


@dataclass(frozen=True)
class Figure:
    """Charts that share a key.

    Attributes:
        charts: in the order of the page.
        key: the marks in them, with what each means.
        numbers: mark, number and name, where numbers stand beside the points in place of names.
    """

    charts: list[Chart]
    key: list[tuple[Markup, str]] = field(default_factory=list)
    numbers: list[tuple[Markup, int, str]] = field(default_factory=list)


def plan_figure(title: str, groups: Mapping[str, tuple[int, int]]) -> Figure:
    """A column per channel group: its channels as an outline, those kept filled.

    Args:
        title: of the chart.
        groups: name -> `(keep, of)`, in the order of the network.
    """
    width, height = 920.0, 230.0
    x = Axis(0, len(groups), 46, width - 8, ())
    y = axis([0, *(of for _, of in groups.values())], height - 24, 26, 4)
    gap = 0.12 if len(groups) > 60 else 0.2
    parts = rulers(x, y)
    for index, (name, (keep, of)) in enumerate(groups.items()):
        left, right = x(index + gap), x(index + 1 - gap)
        parts.append(
            element(
                "g",
                element("title", f"{name}: {keep} of {of} ({keep / of:.0%})"),
                *(
                    element(
                        "rect", x=left, y=y(count), class_=kind,
                        width=max(0.8, right - left), height=y(0) - y(count),
                    )
                    for count, kind in ((of, "of"), (keep, f"kept share{share(keep, of)}"))
                ),
            )
        )  # fmt: skip
    parts.append(element("text", "channels", x=4, y=14, class_="label"))
    words = "channel groups, in the order of the network"
    middle = {"x": (x.start + x.end) / 2, "y": height - 4, "text_anchor": "middle"}
    parts.append(element("text", words, class_="label", **middle))
    total = f"{sum(k for k, _ in groups.values())} of {sum(o for _, o in groups.values())}"
    drawing = picture(width, height, f"Channels kept per group, {total} in all", parts)
    colours = [element("rect", x=1, y=1, width=14, height=14, rx=3, class_=f"share{n}")
               for n in range(len(SHARES))]  # fmt: skip
    key = list(zip(map(_mark, colours), SHARES, strict=True))
    return Figure([Chart(title, drawing, width, height)], key)


def scatter_figure(charts: Sequence[Scatter], joined: bool = False) -> Figure:
    """Points with their names; where those do not fit into one of the charts, all have numbers.

    Args:
        charts: of the same networks or plans.
        joined: draw a line through the points of each.
    """
    kinds = {point.label: point.kind for chart in charts for point in chart.points}
    numbers: dict[str, int] = {}
    if not all(_labels(chart, [p.label for p in chart.points], near=True) for chart in charts):
        numbers = {label: n for n, label in enumerate(kinds, 1)}
    marks = {kind: _mark(_point(kind, 8, 8)) for kind in KINDS}
    return Figure(
        [Chart(chart.title, _scatter(chart, joined, numbers)) for chart in charts],
        [(marks[kind], words) for kind, words in KINDS.items() if kind in kinds.values()],
        [(marks[kinds[label]], n, label) for label, n in numbers.items()],
    )


def _scatter(chart: Scatter, joined: bool, numbers: Mapping[str, int]) -> Markup:
    x, y = _axes(chart)
    parts = frame(x, y, chart.x_label, chart.y_label)
    if joined:
        path = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in chart.points)
        parts.append(element("polyline", points=path, class_="joined"))
    texts = [str(numbers.get(point.label, point.label)) for point in chart.points]
    labels = _labels(chart, texts, near=not numbers)
    labels = labels or beside([(x(p.x), y(p.y)) for p in chart.points])
    marks = []
    for point, text, label in zip(chart.points, texts, labels, strict=True):
        if label.apart:
            short = {"start": -3, "middle": 0, "end": 3}[label.anchor]  # of the text
            ends = {"x1": x(point.x), "y1": y(point.y), "x2": label.x + short, "y2": label.y}
            parts.append(element("line", class_="leader", **ends))
        where = {"x": label.x, "y": label.y + 4, "text_anchor": label.anchor}
        parts.append(element("text", text, class_="name", **where))
        words = element("title", f"{point.label}: {number(point.x)}, {number(point.y)}")
        marks.append(_point(point.kind, x(point.x), y(point.y), words))
    figures = "; ".join(f"{p.label}: {number(p.x)}, {number(p.y)}" for p in chart.points)
    spoken = f"{chart.title}. {chart.x_label} and {chart.y_label} of {figures}"
    return picture(_WIDTH, _HEIGHT, spoken, [*parts, *marks])


def _axes(chart: Scatter) -> tuple[Axis, Axis]:
    x = axis([p.x for p in chart.points], _LEFT, _WIDTH - _RIGHT)
    return x, axis([p.y for p in chart.points], _HEIGHT - _BOTTOM, _TOP)


def _labels(chart: Scatter, texts: Sequence[str], near: bool) -> list[Label] | None:
    x, y = _axes(chart)
    points = [(x(point.x), y(point.y)) for point in chart.points]
    bounds = Box(_LEFT, _TOP - 8, _WIDTH, _HEIGHT - _BOTTOM)
    widths = [_LETTER * len(text) for text in texts]
    return arrange_labels(points, widths, _LINE, bounds, near=near)


def _mark(shape: Markup) -> Markup:
    """A mark alone, for a key beside text that says what it is."""
    attributes = {"viewBox": "0 0 16 16", "width": 16, "height": 16, "aria_hidden": "true"}
    return element("svg", shape, class_="mark", **attributes)


def _point(kind: Kind, x: float, y: float, *title: Markup) -> Markup:
    """The mark of a point; kinds differ in shape as well as in colour."""
    if kind == "dense":
        shape = element("rect", x=x - 5, y=y - 5, width=10, height=10)
    elif kind == "pruned":
        shape = element("path", d=f"M{x:.1f} {y - 7:.1f}l7 12h-14z")
    elif kind == "plan":
        shape = element("circle", cx=x, cy=y, r=5)
    else:
        shape = element("path", d=f"M{x:.1f} {y - 7:.1f}l7 7-7 7-7-7z")
    return element("g", *title, shape, class_=f"point {kind}")


def lines_figure(charts: Sequence[Lines]) -> Figure:
    """Lines over training steps; each chart has its key below."""
    return Figure([_lines(chart) for chart in charts])


def _lines(chart: Lines) -> Chart:
    series = chart.series
    points = [point for line in series.values() for point in line]
    columns = 3 if all(len(name) <= _SHORT for name in series) else 1
    height = _HEIGHT + 18 * -(-len(series) // columns)
    x = axis([0, *(step for step, _ in points)], _LEFT, _WIDTH - _RIGHT)
    y = axis([value for _, value in points], _HEIGHT - _BOTTOM, _TOP)
    parts = frame(x, y, "steps", chart.y_label)
    ends = []
    for index, (name, line) in enumerate(series.items()):
        style = f"line line{index % _STYLES}"
        ends.append(f"{name} from {number(line[0][1])} to {number(line[-1][1])}")
        words = element("title", ends[-1])
        if len(line) > 1:
            path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in _thinned(line))
            parts.append(element("polyline", words, points=path, class_=style))
        else:
            ((step, value),) = line
            parts.append(element("circle", words, cx=x(step), cy=y(value), r=3, class_=style))
        left, top = _LEFT + (index % columns) * 130, _HEIGHT + 10 + 18 * (index // columns)
        parts.append(element("line", x1=left, x2=left + 26, y1=top, y2=top, class_=style))
        parts.append(element("text", name, x=left + 32, y=top + 4, class_="name"))
    drawing = picture(_WIDTH, height, f"{chart.title}: {', '.join(ends)}", parts)
    return Chart(chart.title, drawing, height=height)


def _thinned(line: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    yield from line[:: max(1, -(-len(line) // _MOST_STEPS))]
    yield line[-1]

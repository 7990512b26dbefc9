"""The page's charts as inline SVG; colours come from the page's style sheet, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from drc.report.html.svg import Axis, axis, element, frame, number, picture
from drc.report.labels import Box, Label, beside, place_labels
from drc.report.points import Lines, Scatter, share

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 28, 44
_MOST_STEPS = 400  # points of a line
_LETTER, _LINE = 7.4, 14.0  # width of a letter, about, and height of a line of text
_SHORT, _STYLES = 14, 6  # letters of a name in a column of the key; kinds of lines in style.css


@dataclass(frozen=True)
class Chart:
    """A drawing with its heading."""

    title: str
    drawing: Markup


def plan_chart(groups: Mapping[str, tuple[int, int]]) -> Markup:
    """A column per channel group: its channels as an outline, those kept filled.

    Args:
        groups: name -> `(keep, of)`, in the order of the network.
    """
    width, height = 920.0, 230.0
    x = Axis(0, len(groups), 46, width - 8, ())
    y = axis([0, *(of for _, of in groups.values())], height - 24, 26, 4)
    parts = []
    for tick in y.ticks:
        at = y(tick)
        parts.append(element("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="grid"))
        place = {"x": x.start - 6, "y": at + 4, "text_anchor": "end"}
        parts.append(element("text", number(tick), class_="tick", **place))
    gap = 0.12 if len(groups) > 60 else 0.2
    for place_, (name, (keep, of)) in enumerate(groups.items()):
        left, right = x(place_ + gap), x(place_ + 1 - gap)
        box = {"x": left, "width": max(0.8, right - left)}
        parts.append(
            element(
                "g",
                element("title", f"{name}: {keep} of {of} ({keep / of:.0%})"),
                element("rect", y=y(of), height=y(0) - y(of), class_="of", **box),
                element(
                    "rect", y=y(keep), height=y(0) - y(keep),
                    class_=f"kept share{share(keep, of)}", **box,
                ),
            )
        )  # fmt: skip
    parts.append(element("text", "channels", x=4, y=14, class_="label"))
    middle = (x.start + x.end) / 2
    words = "channel groups, in the order of the network"
    parts.append(
        element("text", words, x=middle, y=height - 4, class_="label", text_anchor="middle")
    )
    total = f"{sum(k for k, _ in groups.values())} of {sum(o for _, o in groups.values())}"
    return picture(width, height, f"Channels kept per group, {total} in all", parts)


def scatter_chart(
    chart: Scatter, joined: bool = False, numbers: Mapping[str, int] | None = None
) -> Markup:
    """Points with their labels; `joined` draws a line through them.

    Args:
        chart: what to draw.
        joined: draw a line through the points.
        numbers: label -> what stands beside the point in its place; a key tells what it means.
    """
    x, y = _axes(chart)
    parts = frame(x, y, chart.x_label, chart.y_label)
    if joined:
        path = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in chart.points)
        parts.append(element("polyline", points=path, class_="joined"))
    texts = [
        point.label if numbers is None else str(numbers[point.label]) for point in chart.points
    ]
    places = _places(chart, texts, near=numbers is None) or beside(_points(chart))
    marks = []
    for point, text, place in zip(chart.points, texts, places, strict=True):
        at, height = x(point.x), y(point.y)
        if place.apart:
            short = {"start": -3, "middle": 0, "end": 3}[place.anchor]  # of the text
            ends = {"x1": at, "y1": height, "x2": place.x + short, "y2": place.y}
            parts.append(element("line", class_="leader", **ends))
        where = {"x": place.x, "y": place.y + 4, "text_anchor": place.anchor}
        parts.append(element("text", text, class_="name", **where))
        title = element("title", f"{point.label}: {number(point.x)}, {number(point.y)}")
        shape = _shape(point.kind, at, height)
        marks.append(element("g", title, shape, class_=f"point {point.kind}"))
    told = "; ".join(f"{p.label}: {number(p.x)}, {number(p.y)}" for p in chart.points)
    label = f"{chart.title}. {chart.x_label} and {chart.y_label} of {told}"
    return picture(_WIDTH, _HEIGHT, label, [*parts, *marks])


def _axes(chart: Scatter) -> tuple[Axis, Axis]:
    x = axis([p.x for p in chart.points], _LEFT, _WIDTH - _RIGHT)
    return x, axis([p.y for p in chart.points], _HEIGHT - _BOTTOM, _TOP)


def _places(chart: Scatter, texts: Sequence[str], near: bool) -> list[Label] | None:
    bounds = Box(_LEFT, _TOP - 8, _WIDTH, _HEIGHT - _BOTTOM)
    widths = [_LETTER * len(text) for text in texts]
    return place_labels(_points(chart), widths, _LINE, bounds, near=near)


def _points(chart: Scatter) -> list[tuple[float, float]]:
    x, y = _axes(chart)
    return [(x(point.x), y(point.y)) for point in chart.points]


def numbered(charts: Sequence[Scatter]) -> dict[str, int] | None:
    """Numbers to show in place of the labels, the same in all charts; None where labels fit."""
    if all(_places(chart, [p.label for p in chart.points], near=True) for chart in charts):
        return None
    labels = dict.fromkeys(point.label for chart in charts for point in chart.points)
    return {label: number for number, label in enumerate(labels, 1)}


def mark(kind: str) -> Markup:
    """The mark of a kind of point, alone, for a key beside text that says what it is."""
    shape = element("g", _shape(kind, 8, 8), class_=f"point {kind}")
    return element("svg", shape, viewBox="0 0 16 16", class_="mark", aria_hidden="true")


def _shape(kind: str, x: float, y: float) -> Markup:
    """Kinds differ in shape as well as in colour."""
    if kind == "dense":
        return element("rect", x=x - 5, y=y - 5, width=10, height=10)
    if kind == "pruned":
        return element("path", d=f"M{x:.1f} {y - 7:.1f}l7 12h-14z")
    if kind == "plan":
        return element("circle", cx=x, cy=y, r=5)
    return element("path", d=f"M{x:.1f} {y - 7:.1f}l7 7-7 7-7-7z")


def line_chart(chart: Lines) -> Markup:
    """Lines over training steps, with a key below; each has a dash pattern of its own."""
    series = chart.series
    points = [point for line in series.values() for point in line]
    columns = 3 if all(len(name) <= _SHORT for name in series) else 1
    rows = -(-len(series) // columns)
    x = axis([0, *(step for step, _ in points)], _LEFT, _WIDTH - _RIGHT)
    y = axis([value for _, value in points], _HEIGHT - _BOTTOM, _TOP)
    parts = frame(x, y, "steps", chart.y_label)
    for place, (name, line) in enumerate(series.items()):
        every = max(1, -(-len(line) // _MOST_STEPS))
        shown = [*line[::every], *line[-1:]]
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in shown)
        drawn = "polyline" if len(line) > 1 else "circle"
        spot = {"points": path} if len(line) > 1 else dict(cx=x(line[0][0]), cy=y(line[0][1]), r=3)
        words = element("title", f"{name}, {number(line[0][1])} to {number(line[-1][1])}")
        parts.append(element(drawn, words, class_=f"line line{place % _STYLES}", **spot))
        left, top = _LEFT + (place % columns) * 130, _HEIGHT + 10 + 18 * (place // columns)
        parts.append(
            element(
                "line", x1=left, x2=left + 26, y1=top, y2=top, class_=f"line line{place % _STYLES}"
            )
        )
        parts.append(element("text", name, x=left + 32, y=top + 4, class_="name"))
    ends = ", ".join(f"{n} from {number(p[0][1])} to {number(p[-1][1])}" for n, p in series.items())
    return picture(_WIDTH, _HEIGHT + 18 * rows, f"{chart.title}: {ends}", parts)


__all__ = ["Chart", "line_chart", "mark", "numbered", "plan_chart", "scatter_chart"]

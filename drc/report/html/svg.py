"""SVG written by hand: elements, and the axes of charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_LEAST = 1e-99  # values below are 0: the smallest of all have no powers of ten to round to
_EQUAL = 1e-9


def element(tag: str, *children: str | Markup, **attributes: object) -> Markup:
    """One element; text and values are escaped, `_` in a name stands for `-` (`class_`: class).

    Numbers are rounded to a tenth.
    """
    parts = []
    for name, value in attributes.items():
        text = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
        parts.append(f' {name.rstrip("_").replace("_", "-")}="{escape(text)}"')
    inside = Markup("").join(children)
    return Markup(f"<{tag}{''.join(parts)}>{inside}</{tag}>")


def picture(width: float, height: float, label: str, children: Iterable[Markup]) -> Markup:
    """A drawing that fills its column; `label` is what a screen reader says of it."""
    return element(
        "svg",
        element("title", label),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        class_="chart",
        xmlns="http://www.w3.org/2000/svg",
    )


@dataclass(frozen=True)
class Axis:
    """Values to positions on the drawing.

    Attributes:
        low, high: the values at the ends, `low < high`.
        start, end: their positions.
        ticks: values to mark.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def axis(values: Sequence[float], start: float, end: float, count: int = 5) -> Axis:
    """An axis on which all values lie, with round ticks; values that are all one get some room."""
    low, high = min(values), max(values)
    largest = max(abs(low), abs(high))
    if largest < _LEAST:
        room = 1.0
    elif high - low < _EQUAL * largest:  # but for rounding
        room = largest * 0.05
    else:
        room = (high - low) * 0.08
    low, high = (low - room if low else low), high + room
    step = _round_step((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return Axis(low, high, start, end, tuple(i * step for i in range(first, last + 1)))


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


def number(value: float) -> str:
    """A tick's label, such as `1,200`, `0.25` and `5e-5`."""
    if abs(value) >= 1e9 or 0 < abs(value) < 1e-3:
        mantissa, power = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def rulers(x: Axis, y: Axis) -> list[Markup]:
    """Horizontal grid lines with their values."""
    parts: list[Markup] = []
    for tick in y.ticks:
        at = y(tick)
        parts.append(element("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="grid"))
        spot = {"x": x.start - 6, "y": at + 4, "text_anchor": "end"}
        parts.append(element("text", number(tick), class_="tick", **spot))
    return parts


def frame(x: Axis, y: Axis, x_label: str, y_label: str) -> list[Markup]:
    """Grid lines with their values, and what the axes mean."""
    parts = rulers(x, y)
    for tick in x.ticks:
        at = x(tick)
        parts.append(element("line", x1=at, x2=at, y1=y.end, y2=y.start, class_="grid"))
        spot = {"x": at, "y": y.start + 16, "text_anchor": "middle"}
        parts.append(element("text", number(tick), class_="tick", **spot))
    middle = {"x": (x.start + x.end) / 2, "y": y.start + 34, "text_anchor": "middle"}
    parts.append(element("text", x_label, class_="label", **middle))
    parts.append(element("text", y_label, x=4, y=14, class_="label"))
    return parts

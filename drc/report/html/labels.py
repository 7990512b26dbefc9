"""Where the labels of a chart's points go, so that none covers a point or another label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Anchor = Literal["start", "middle", "end"]

_MARK = 7.0  # half the side of a point's mark
_RINGS = (11.0, 19.0, 30.0, 44.0, 60.0, 80.0)  # from a point to its label, nearest first
_DIRECTIONS = (
    (1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1),
    (1, -0.5), (-1, -0.5), (1, 0.5), (-1, 0.5),
)  # fmt: skip
_ANCHORS: dict[int, Anchor] = {1: "start", 0: "middle", -1: "end"}


@dataclass(frozen=True)
class Box:
    """A rectangle; y counts downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def contains(self, other: Box) -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


@dataclass(frozen=True)
class Label:
    """Where one label stands.

    Attributes:
        x, y: of its anchor; `y` is the middle of its height.
        anchor: which end of the text lies at `x`.
        apart: whether it lies not right beside its point, so that a line should lead there.
    """

    x: float
    y: float
    anchor: Anchor = "start"
    apart: bool = False


def arrange_labels(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    height: float,
    bounds: Box,
    *,
    near: bool = False,
) -> list[Label] | None:
    """Put every label on the nearest free spot around its point.

    Args:
        points: where the marks are, in the drawing's units.
        widths: of the labels.
        height: of a label.
        bounds: what no label may leave.
        near: whether labels must stay close to their points: long ones are not read at the end of
            a line.

    Returns:
        The labels in the order of the points; None where there is no room for one of them.
    """
    taken = [Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in points]
    found: list[Label] = []
    for point, width in zip(points, widths, strict=True):
        for label, box in _candidates(point, width, height, _RINGS[:2] if near else _RINGS):
            if bounds.contains(box) and not any(map(box.overlaps, taken)):
                found.append(label)
                taken.append(box)
                break
        else:
            return None
    return found


def beside(points: Sequence[tuple[float, float]]) -> list[Label]:
    """Right of every point, for where there is no room: better than no labels."""
    return [Label(x + _RINGS[0], y) for x, y in points]


def _candidates(
    point: tuple[float, float], width: float, height: float, rings: Sequence[float]
) -> Iterator[tuple[Label, Box]]:
    for ring in rings:
        for right, down in _DIRECTIONS:
            x, y = point[0] + right * ring, point[1] + down * (ring + height / 4)
            anchor = _ANCHORS[right]
            left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = Box(left, y - height / 2, left + width, y + height / 2)
            yield Label(x, y, anchor, ring > _RINGS[0]), box

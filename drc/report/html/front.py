"""Charts of quality against cost, with the key to their marks and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from drc.report.html.charts import Chart, mark, numbered, scatter_chart
from drc.report.points import KINDS, Scatter


@dataclass(frozen=True)
class Key:
    """What a number in the charts stands for."""

    mark: Markup
    number: int
    label: str


@dataclass(frozen=True)
class Front:
    """Charts that share a key.

    Attributes:
        charts: in the order of the page.
        kinds: every kind of mark in them, with what it means.
        numbers: what the numbers mean; empty where names stand beside the points.
    """

    charts: list[Chart]
    kinds: list[tuple[Markup, str]]
    numbers: list[Key]


def front(charts: Sequence[Scatter], joined: bool = False) -> Front:
    """Draw charts; where names do not fit into one of them, all have numbers.

    Args:
        charts: of the same networks or plans.
        joined: draw a line through the points of each.
    """
    numbers = numbered(charts)
    return Front(
        [Chart(chart.title, scatter_chart(chart, joined, numbers)) for chart in charts],
        [(mark(kind), words) for kind, words in _kinds(charts)],
        list(_key(charts, numbers or {})),
    )


def _key(charts: Sequence[Scatter], numbers: Mapping[str, int]) -> Iterator[Key]:
    kinds = {point.label: point.kind for chart in charts for point in chart.points}
    for label, number in numbers.items():
        yield Key(mark(kinds[label]), number, label)


def _kinds(charts: Sequence[Scatter]) -> Iterator[tuple[str, str]]:
    there = {point.kind for chart in charts for point in chart.points}
    return ((kind, text) for kind, text in KINDS.items() if kind in there)


__all__ = ["Front", "Key", "front"]

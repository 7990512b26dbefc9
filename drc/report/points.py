"""Quality against cost: the points that pages and plots draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from drc.report.run_files import RunFiles
from drc.report.schema import Report

Kind = Literal["dense", "pruned", "after", "plan", "chosen"]


@dataclass(frozen=True)
class Point:
    """One network, or one plan, in a chart."""

    label: str
    kind: Kind
    x: float
    y: float


@dataclass(frozen=True)
class Scatter:
    """One chart.

    Attributes:
        title: above it.
        x_label, y_label: with units.
        points: in drawing order.
    """

    title: str
    x_label: str
    y_label: str
    points: list[Point]


def quality_charts(runs: Sequence[RunFiles]) -> list[Scatter]:
    """PSNR against parameters, MACs and latency, for the measured networks of the runs.

    A dense network that several runs share is drawn once. A chart without any point is left out.
    """
    size = " x ".join(map(str, runs[0].report.lr_size))
    axes = {
        "params": ("PSNR and parameters", "parameters (millions)", 1e6),
        "macs": ("PSNR and multiply-adds", f"MACs (G, LR {size})", 1e9),
        "latency_ms": ("PSNR and latency", f"latency (ms, LR {size})", 1.0),
    }
    charts = []
    for name, (title, x_label, unit) in axes.items():
        points = [point for run in runs for point in _networks(run, name, unit, len(runs) > 1)]
        unique = list(dict.fromkeys(points))
        if unique:
            charts.append(Scatter(title, x_label, "PSNR (dB)", unique))
    return charts


def _networks(run: RunFiles, cost: str, unit: float, several: bool) -> Iterator[Point]:
    report = run.report
    before, after = getattr(report.before, cost), getattr(report.after, cost)
    if before is not None and report.before.psnr is not None:
        yield Point(f"{report.model}, dense", "dense", before / unit, report.before.psnr)
    if after is None:
        return
    if report.recovered and not several and report.pruned_only.psnr is not None:
        yield Point("pruned, not recovered", "pruned", after / unit, report.pruned_only.psnr)
    if report.after.psnr is not None:
        own = "recovered" if report.recovered else "pruned"
        kind: Kind = "after" if report.recovered or several else "pruned"
        yield Point(run.name if several else own, kind, after / unit, report.after.psnr)


def plan_front(run: RunFiles) -> Scatter | None:
    """The loss that the strategy expects of each plan against its cost.

    Returns:
        None unless there are several plans and the strategy expects a loss of each.
    """
    plans = [plan for plan in run.front if plan.expected_loss is not None]
    if len(plans) < 2:
        return None
    budget = plans[0].budget
    points = [
        Point(
            f"ratio {plan.budget.ratio:g}",
            "chosen" if run.plan and plan.budget.ratio == run.plan.budget.ratio else "plan",
            100 * plan.budget.predicted / plan.budget.before,
            plan.expected_loss or 0.0,
        )
        for plan in reversed(plans)
    ]
    dense = Point("dense", "dense", 100.0, 0.0)
    label = f"{budget.unit if budget.kind != 'latency' else 'latency'} left (% of dense)"
    return Scatter("Plans of the search", label, "expected loss", [*points, dense])


def share(keep: int, of: int) -> int:
    """The class of a width, 0 to 4: under 25 %, 50 %, 75 %, 100 % of the channels, and all."""
    return 4 if keep == of else min(3, 4 * keep // of)


SHARES = ("under 25 %", "25 to 50 %", "50 to 75 %", "75 % and more", "all")
"""What the classes of `share` are called."""


def kept_channels(report: Report) -> tuple[int, int]:
    """The removable channels that stay, and how many there were."""
    widths = report.plan.groups.values()
    return sum(keep for keep, _ in widths), sum(of for _, of in widths)


__all__ = ["SHARES", "Point", "Scatter", "kept_channels", "plan_front", "quality_charts", "share"]

"""What the charts show: quality against cost, plans against each other, and how trainings went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from drc.report.compare import dense_labels
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


KINDS: dict[Kind, str] = {
    "dense": "dense",
    "after": "recovered",
    "pruned": "pruned, not recovered",
    "chosen": "plan of this run",
    "plan": "other plan",
}
"""What a key says of the marks."""


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


@dataclass(frozen=True)
class Lines:
    """One chart over training steps.

    Attributes:
        title: above it.
        y_label: what is drawn.
        series: name -> `(step, value)`, none empty.
    """

    title: str
    y_label: str
    series: dict[str, list[tuple[float, float]]]


def quality_charts(runs: Sequence[RunFiles]) -> list[Scatter]:
    """PSNR against parameters, MACs and latency, for the measured networks of the runs.

    A dense network that several runs share is drawn once, with the figures of the first; once per
    device where its time was taken on several. A chart without any point is left out.
    """
    size = " x ".join(map(str, runs[0].report.lr_size))
    axes = {
        "params": ("PSNR and parameters", "parameters (millions)", 1e6),
        "macs": ("PSNR and multiply-adds", f"MACs (G, LR {size})", 1e9),
        "latency_ms": ("PSNR and latency", f"latency (ms, LR {size})", 1.0),
    }
    several = len(runs) > 1
    charts = []
    for name, (title, x_label, unit) in axes.items():
        dense: dict[tuple[str, str], Point] = {}
        points: list[Point] = []
        for run, label in zip(runs, dense_labels(runs), strict=True):
            before, psnr = getattr(run.report.before, name), run.report.before.psnr
            if before is not None and psnr is not None:
                point = Point(label if several else "dense", "dense", before / unit, psnr)
                dense.setdefault((label, _timed_on(run.report) if unit == 1 else ""), point)
            points += _compressed(run, name, unit, several)
        if dense or points:
            charts.append(Scatter(title, x_label, "PSNR (dB)", [*dense.values(), *points]))
    return charts


def _timed_on(report: Report) -> str:
    return f"{report.latency} {report.machine}"


def _compressed(run: RunFiles, cost: str, unit: float, several: bool) -> Iterator[Point]:
    report = run.report
    after = getattr(report.after, cost)
    if after is None:
        return
    if report.recovered and not several and report.pruned_only.psnr is not None:
        yield Point("pruned, not recovered", "pruned", after / unit, report.pruned_only.psnr)
    if report.after.psnr is not None:
        own = "recovered" if report.recovered else "pruned"
        kind: Kind = "after" if report.recovered else "pruned"
        yield Point(run.name if several else own, kind, after / unit, report.after.psnr)


def plan_curve(run: RunFiles) -> Scatter | None:
    """The loss that the strategy expects of each plan against its cost.

    Returns:
        None unless there are several plans and the strategy expects a loss of each.
    """
    plans = [plan for plan in run.plans if plan.expected_loss is not None]
    if len(plans) < 2:
        return None
    budget = plans[0].budget
    points = []
    for plan in reversed(plans):
        chosen = run.plan is not None and plan.budget.ratio == run.plan.budget.ratio
        label = f"ratio {plan.budget.ratio:g}{' (this run)' if chosen else ''}"
        cost = 100 * plan.budget.predicted / plan.budget.before
        points.append(Point(label, "chosen" if chosen else "plan", cost, plan.expected_loss or 0.0))
    points.append(Point("dense", "dense", 100.0, 0.0))
    label = f"{budget.unit if budget.kind != 'latency' else 'latency'} left (% of dense)"
    return Scatter(
        "Plans of the search, not measured", label, "loss expected by the search", points
    )


_TERMS = ("loss", "primal", "distill", "features", "dual", "kernel")
"""Of the lines of metrics.jsonl: the sum that is minimised, and its terms before weighting."""


def training_charts(run: RunFiles) -> list[Lines]:
    """The terms of the loss that are not 0 all along, PSNR on held-out images, learning rate.

    A chart without any number is left out.
    """
    terms = {name: run.series(name) for name in _TERMS}
    drawn = {name: line for name, line in terms.items() if any(value for _, value in line)}
    charts = [Lines("losses, recovery", "loss", drawn)]
    for name, title, label in (
        ("validation", "held-out images", "PSNR (dB)"),
        ("lr", "learning rate", "rate"),
    ):
        line = run.series(name)
        charts.append(Lines(f"{title}, recovery", label, {title: line} if line else {}))
    return [chart for chart in charts if chart.series]


def loss_chart(runs: Sequence[RunFiles]) -> list[Lines]:
    """The losses of several runs in one chart; none where no run has any."""
    lines = {run.name: run.series("loss") for run in runs}
    drawn = {name: line for name, line in lines.items() if line}
    return [Lines("loss of the recovery", "loss", drawn)] if drawn else []


def share(keep: int, of: int) -> int:
    """The class of a width, 0 to 4: under 25 %, 50 %, 75 %, 100 % of the channels, and all."""
    return 4 if keep == of else min(3, 4 * keep // of)


SHARES = ("under 25 %", "25 to 50 %", "50 to 75 %", "75 % and more", "all")
"""What the classes of `share` are called."""

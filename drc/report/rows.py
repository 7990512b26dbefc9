"""The figures of a report as text, shared by the terminal table and the Markdown file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drc.report.schema import Report

MISSING = "-"


@dataclass(frozen=True)
class Row:
    """One line of the table before/after."""

    name: str
    before: str
    pruned: str
    after: str
    change: str


def headings(report: Report) -> tuple[str, str, str, str]:
    """The column headings that go with `rows`, after that of the names."""
    after = "after recovery" if report.recovered else "after (no recovery)"
    return "before", "pruned", after, "change"


def rows(report: Report) -> Iterator[Row]:
    """The lines of the table: parameters, MACs, PSNR, SSIM, kernel error if any, latency."""
    height, width = report.lr_size
    before, after, pruned = report.before, report.after, report.pruned_only
    yield Row(
        "parameters",
        f"{before.params:,}",
        f"{after.params:,}",
        f"{after.params:,}",
        _percent(before.params, after.params),
    )
    yield Row(
        f"MACs (LR {height}x{width})",
        giga(before.macs),
        giga(after.macs),
        giga(after.macs),
        _percent(before.macs, after.macs),
    )
    yield _measured("PSNR (dB)", before.psnr, pruned.psnr, after.psnr, 2)
    yield _measured("SSIM", before.ssim, pruned.ssim, after.ssim, 4)
    if report.kernel_error is not None:
        errors = report.kernel_error
        yield _measured("kernel error", errors.before, errors.pruned, errors.after, 3)
    yield Row(
        f"latency (ms, LR {height}x{width})",
        _figure(before.latency_ms, 1),
        MISSING,
        _figure(after.latency_ms, 1),
        _percent(before.latency_ms, after.latency_ms),
    )


def title(report: Report) -> str:
    """One line that says what was done to which network."""
    count, before, after = _budgeted(report)
    removed = f"{1 - after / before:.1%} of the {count} removed"
    return f"{report.model} x{report.scale}: {removed} ({report.plan.ratio:.0%} asked)"


def _budgeted(report: Report) -> tuple[str, float, float]:
    """What the plan's budget counts, before and after; MACs for a time that was not measured."""
    before, after = report.before, report.after
    if report.plan.budget == "params":
        return "parameters", before.params, after.params
    if report.plan.budget == "latency" and before.latency_ms and after.latency_ms:
        return "latency", before.latency_ms, after.latency_ms
    return "MACs", before.macs, after.macs


def times(report: Report) -> Iterator[tuple[str, str]]:
    """The steps and their seconds, then the sum."""
    seconds = {
        name: float(facts["seconds"]) for name, facts in report.steps.items() if "seconds" in facts
    }
    for name, value in seconds.items():
        yield name, f"{value:.1f} s"
    if seconds:
        yield "total", f"{sum(seconds.values()):.1f} s"


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """What stands behind the figures, as name and sentence."""
    yield "weights", report.weights
    yield "search", f"{report.plan.strategy}, channels ranked by {report.plan.importance}"
    yield "groups", _groups(report)
    yield "calibration", report.data.calibration
    yield "recovery", report.data.recovery
    names = ", ".join(image.name for image in report.data.images[:6])
    more = len(report.data.images) - 6
    listed = f" ({names}{f' and {more} more' if more > 0 else ''})" if names else ""
    yield "test", f"{report.data.test}{listed}; PSNR and SSIM on Y" if names else report.data.test
    if report.bicubic.psnr is not None:
        psnr, ssim = _figure(report.bicubic.psnr, 2), _figure(report.bicubic.ssim, 4)
        yield "bicubic", f"{psnr} dB and {ssim} on the same images"
    if report.kernel_error is not None:
        yield (
            "kernel error",
            "sum of absolute differences (0 to 2) between the estimated blur kernel and the one "
            "that an LR image shows beside its bicubic one, mean over the images",
        )
    yield "MACs", _macs(report)
    if report.latency is not None:
        conditions = report.latency
        yield (
            "latency",
            f"median of {conditions.runs} interleaved runs, {conditions.device}, "
            f"{conditions.threads} {'thread' if conditions.threads == 1 else 'threads'}, "
            f"{conditions.dtype}",
        )


def _groups(report: Report) -> str:
    narrower = sum(keep < of for keep, of in report.plan.groups.values())
    text = f"{narrower} of {len(report.plan.groups)} channel groups became narrower"
    stay = len({frozen.name for frozen in report.plan.frozen})
    return f"{text}; the channels of {stay} layers cannot be cut" if stay else text


def giga(macs: int) -> str:
    """Multiply-adds in units that keep four digits."""
    return f"{macs / 1e9:,.2f} G" if macs >= 1e9 else f"{macs / 1e6:,.2f} M"


def _macs(report: Report) -> str:
    text = f"counted by {report.counters.macs}"
    if report.counters.thop_macs is not None:
        before, after = report.counters.thop_macs
        text += f"; thop counts {giga(before)} and {giga(after)}"
    return text


def _figure(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:,.{digits}f}"


def _percent(before: float | None, after: float | None) -> str:
    if before is None or after is None or before == 0:
        return MISSING
    return f"{(after - before) / before:+.1%}"


def _measured(
    name: str, before: float | None, pruned: float | None, after: float | None, digits: int
) -> Row:
    """A line of figures that are compared by their difference."""
    return Row(
        name,
        _figure(before, digits),
        _figure(pruned, digits),
        _figure(after, digits),
        _difference(before, after, digits),
    )


def _difference(before: float | None, after: float | None, digits: int) -> str:
    if before is None or after is None:
        return MISSING
    shown = round(after, digits) - round(before, digits)  # of the figures beside it
    return f"{shown:+.{digits}f}"

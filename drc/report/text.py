"""A report as text: the tables and facts of all its forms, the terminal's and Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from drc.report.schema import Report
from drc.report.table import (
    MISSING,
    Table,
    console,
    difference,
    escape_bars,
    figure,
    giga,
    print_facts,
    relative,
)


def title(report: Report) -> str:
    """One line that says what was done to which network."""
    count, before, after = _budgeted(report)
    removed = f"{1 - after / before:.1%} of the {count} removed"
    return f"{report.network}: {removed} ({report.plan.ratio:.0%} asked)"


def _budgeted(report: Report) -> tuple[str, float, float]:
    """What the plan's budget counts, before and after; MACs for a time that was not measured."""
    before, after = report.before, report.after
    if report.plan.budget == "params":
        return "parameters", before.params, after.params
    if report.plan.budget == "latency" and before.latency_ms and after.latency_ms:
        return "latency", before.latency_ms, after.latency_ms
    return "MACs", before.macs, after.macs


def summary(report: Report) -> Table:
    """Before, pruned and after: parameters, MACs, PSNR, SSIM, kernel error if any, latency."""
    before, after, pruned = report.before, report.after, report.pruned_only
    size = f"LR {report.lr_size[0]}x{report.lr_size[1]}"
    params, macs = f"{after.params:,}", giga(after.macs)
    rows: list[tuple[str, ...]] = [
        ("parameters", f"{before.params:,}", params, params, relative(before.params, after.params)),
        (f"MACs ({size})", giga(before.macs), macs, macs, relative(before.macs, after.macs)),
        _quality("PSNR (dB)", before.psnr, pruned.psnr, after.psnr, 2),
        _quality("SSIM", before.ssim, pruned.ssim, after.ssim, 4),
    ]
    if report.kernel_error is not None:
        errors = report.kernel_error
        rows.append(_quality("kernel error", errors.before, errors.pruned, errors.after, 3))
    times = before.latency_ms, after.latency_ms
    shown = figure(times[0], 1), MISSING, figure(times[1], 1)
    rows.append((f"latency (ms, {size})", *shown, relative(*times)))
    last = "after recovery" if report.recovered else "after (no recovery)"
    return Table(("", "before", "pruned", last, "change"), rows, title(report))


def _quality(
    name: str, before: float | None, pruned: float | None, after: float | None, digits: int
) -> tuple[str, ...]:
    cells = (figure(value, digits) for value in (before, pruned, after))
    return (name, *cells, difference(before, after, digits))


def images(report: Report) -> Table:
    """The test images one by one."""
    headings = ["image", "PSNR before", "PSNR after", "change", "SSIM before", "SSIM after"]
    rows = []
    for image in report.data.images:
        psnr = image.psnr_before, image.psnr_after
        cells = [figure(value, 2) for value in psnr] + [difference(*psnr, 2)]
        cells += [figure(value, 4) for value in (image.ssim_before, image.ssim_after)]
        if report.kernel_error is not None:
            errors = image.kernel_error_before, image.kernel_error_after
            cells += [figure(value, 3) for value in errors]
        rows.append((image.name, *cells))
    if report.kernel_error is not None:
        headings += ["kernel error before", "kernel error after"]
    return Table(headings, rows)


def frozen(report: Report) -> Table:
    """The channels that no plan can remove."""
    rows = [(part.name, str(part.channels), part.reason) for part in report.plan.frozen]
    return Table(("channels of", "count", "why"), rows, align="lrl")


def times(report: Report) -> Table:
    """The steps and their seconds, then the sum; no rows where no times are known."""
    seconds = {
        name: float(facts["seconds"]) for name, facts in report.steps.items() if "seconds" in facts
    }
    if seconds:
        seconds["total"] = sum(seconds.values())
    return Table(("step", "time"), [(name, f"{value:.1f} s") for name, value in seconds.items()])


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
        psnr, ssim = figure(report.bicubic.psnr, 2), figure(report.bicubic.ssim, 4)
        yield "bicubic", f"{psnr} dB and {ssim} on the same images"
    if report.kernel_error is not None:
        yield (
            "kernel error",
            "sum of absolute differences (0 to 2) between the estimated blur kernel and the one "
            "that an LR image shows beside its bicubic one, mean over the images",
        )
    macs = f"counted by {report.counters.macs}"
    if report.counters.thop_macs is not None:
        macs += "; thop counts {} and {}".format(*map(giga, report.counters.thop_macs))
    yield "MACs", macs
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
    stay = len({part.name for part in report.plan.frozen})
    return f"{text}; the channels of {stay} layers cannot be cut" if stay else text


def print_text(report: Report, file: IO[str]) -> None:
    """Write the table before/after, the time of every step, the facts and the files to `file`."""
    out = console(file)
    out.print(summary(report).rich())
    steps = times(report).rich(bare=True)
    steps.show_header, steps.columns[0].style = False, "bold"
    out.print(steps)
    print_facts(out, facts(report))
    print_facts(out, (("note", note) for note in report.notes), "bold yellow")
    print_facts(out, _files(report), wrap=False)


def _files(report: Report) -> Iterator[tuple[str, str]]:
    """The run folder and the names in it; other files with their whole paths."""
    folder = report.files.get("run folder")
    inside = []
    for name, path in report.files.items():
        if folder is not None and Path(path).parent == Path(folder):
            inside.append(Path(path).name)
        else:
            yield name, path
    if inside:
        yield "files", ", ".join(inside)


def to_markdown(report: Report) -> str:
    """The whole report as Markdown text, ending in a newline."""
    widths = [(name, str(keep), str(of)) for name, (keep, of) in report.plan.groups.items()]
    tables = {
        "Test images": images(report),
        "Time": times(report),
        "Widths": Table(("group", "kept", "of"), widths),
        "Channels that stay": frozen(report),
    }
    sections = [
        f"# {title(report)}",
        *(f"> **Note:** {escape_bars(note)}" for note in report.notes),
        summary(report).markdown(),
        "## Behind the figures",
        "\n".join(f"- **{name}:** {escape_bars(text)}" for name, text in facts(report)),
    ]
    for name, table in tables.items():
        if table.rows:
            sections += [f"## {name}", table.markdown()]
    if report.files:
        sections += ["## Files", "\n".join(f"- {n}: `{p}`" for n, p in report.files.items())]
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    sections.append(f"Made by `{report.command}` on {report.created} with {versions}.")
    return "\n\n".join(sections) + "\n"

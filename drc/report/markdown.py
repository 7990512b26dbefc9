"""A report as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from drc.report.rows import facts, headings, rows, times, title
from drc.report.schema import Report


def to_markdown(report: Report) -> str:
    """Return the whole report as Markdown text, ending in a newline."""
    sections = [
        f"# {title(report)}",
        *(f"> **Note:** {_escape(note)}" for note in report.notes),
        _table(
            ("", *headings(report)),
            ((row.name, row.before, row.pruned, row.after, row.change) for row in rows(report)),
        ),
        "## Behind the figures",
        "\n".join(f"- **{name}:** {_escape(text)}" for name, text in facts(report)),
    ]
    if report.data.images:
        sections += ["## Test images", _images(report)]
    steps = list(times(report))
    if steps:
        sections += ["## Time", _table(("step", "time"), steps)]
    sections += ["## Widths", _widths(report)]
    if report.plan.frozen:
        sections += ["## Channels that stay", _frozen(report)]
    if report.files:
        sections += ["## Files", "\n".join(f"- {n}: `{p}`" for n, p in report.files.items())]
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    sections.append(f"Made by `{report.command}` on {report.created} with {versions}.")
    return "\n\n".join(sections) + "\n"


def _images(report: Report) -> str:
    def cell(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    figures = {"PSNR": ("psnr", 2), "SSIM": ("ssim", 4)}
    if report.kernel_error is not None:
        figures["kernel error"] = ("kernel_error", 3)
    columns = [
        (f"{heading} {side}", f"{field}_{side}", digits)
        for heading, (field, digits) in figures.items()
        for side in ("before", "after")
    ]
    return _table(
        ("image", *(heading for heading, _, _ in columns)),
        (
            (image.name, *(cell(getattr(image, field), digits) for _, field, digits in columns))
            for image in report.data.images
        ),
    )


def _widths(report: Report) -> str:
    return _table(
        ("group", "kept", "of"),
        ((name, str(kept), str(of)) for name, (kept, of) in report.plan.groups.items()),
    )


def _frozen(report: Report) -> str:
    return _table(
        ("channels of", "count", "why"),
        ((frozen.name, str(frozen.channels), frozen.reason) for frozen in report.plan.frozen),
    )


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    align = ["---", *["---:"] * (len(headings) - 1)]
    body = [" | ".join(_escape(cell) for cell in line) for line in lines]
    return "\n".join(f"| {text} |" for text in (" | ".join(headings), " | ".join(align), *body))


def _escape(text: str) -> str:
    """Keep a bar in a name from ending a cell."""
    return text.replace("|", "\\|")

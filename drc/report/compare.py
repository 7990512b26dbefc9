"""Several runs beside each other: their figures in one table, and what makes them unlike."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from drc.report.dense import dense_labels
from drc.report.rows import MISSING, giga
from drc.report.run_files import RunFiles
from drc.report.schema import Report, Side

HEADINGS = ("network", "plan", "parameters", "MACs", "PSNR (dB)", "SSIM", "latency (ms)")

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Comparison:
    """Runs to compare.

    Attributes:
        runs: by names of their own, in the order given.
        folders: where each lies.
        notes: what makes figures unlike, one sentence each.
    """

    runs: list[RunFiles]
    folders: list[str]
    notes: list[str]

    def to_json(self) -> str:
        """The reports, whole, with the names of the runs and the notes."""
        runs = [
            {"name": run.name, "run": folder, "report": json.loads(run.report.to_json())}
            for run, folder in zip(self.runs, self.folders, strict=True)
        ]
        content = {"schema_version": SCHEMA_VERSION, "runs": runs, "notes": self.notes}
        return json.dumps(content, indent=2, allow_nan=False)


def compare(runs: Sequence[RunFiles], folders: Sequence[str]) -> Comparison:
    """Name the runs apart, by their folders' names or else by the whole paths, and compare them."""
    often = Counter(run.name for run in runs)
    named = [
        replace(run, name=run.name if often[run.name] == 1 else folder)
        for run, folder in zip(runs, folders, strict=True)
    ]
    return Comparison(named, list(folders), list(_unlike(named)))


def table_rows(runs: Sequence[RunFiles]) -> Iterator[tuple[str, ...]]:
    """The cells below `HEADINGS`: every dense network once, then every run."""
    dense: dict[str, Side] = {}
    for label, run in zip(dense_labels(runs), runs, strict=True):
        dense.setdefault(label, run.report.before)
    for label, side in dense.items():
        yield _cells(label, MISSING, side, None)
    for run in runs:
        report, plan = run.report, run.report.plan
        plan_text = f"{plan.budget} {plan.ratio:.0%}, {plan.strategy}"
        if not report.recovered:
            plan_text += ", not recovered"
        yield _cells(run.name, plan_text, report.after, report.before)


def _cells(name: str, plan: str, side: Side, dense: Side | None) -> tuple[str, ...]:
    def share(now: float | None, before: float | None) -> str:
        return f" ({(now - before) / before:+.1%})" if now is not None and before else ""

    def apart(now: float | None, before: float | None) -> str:
        if now is None or before is None:
            return ""
        return f" ({round(now, 2) - round(before, 2):+.2f})"

    def of_dense(figure: str) -> Any:
        return getattr(dense, figure, None)

    latency = side.latency_ms
    return (
        name,
        plan,
        f"{side.params:,}{share(side.params, of_dense('params'))}",
        f"{giga(side.macs)}{share(side.macs, of_dense('macs'))}",
        MISSING if side.psnr is None else f"{side.psnr:.2f}{apart(side.psnr, of_dense('psnr'))}",
        MISSING if side.ssim is None else f"{side.ssim:.4f}",
        MISSING if latency is None else f"{latency:,.1f}{share(latency, of_dense('latency_ms'))}",
    )


def image_rows(runs: Sequence[RunFiles]) -> Iterator[tuple[str, ...]]:
    """PSNR of every test image after each run, for images that all runs measured."""
    per_run = [{i.name: i.psnr_after for i in run.report.data.images} for run in runs]
    for name in per_run[0]:
        if all(name in found for found in per_run):
            values = [found[name] for found in per_run]
            yield name, *(MISSING if v is None else f"{v:.2f}" for v in values)


_UNLIKE: tuple[tuple[str, Callable[[Report], Any]], ...] = (
    ("PSNR and SSIM are of different test images", lambda r: r.data.test),
    ("the runs have different scales", lambda r: r.scale),
    ("MACs and latency are of different LR sizes", lambda r: r.lr_size),
    ("MACs were counted differently", lambda r: r.counters.macs),
    ("the runs start from different weights", lambda r: (r.model, r.weights)),
    (
        "latency was taken on different devices or numbers of threads",
        lambda r: r.latency and (r.latency.device, r.latency.threads, r.latency.dtype),
    ),
    ("the runs were measured on different machines", lambda r: r.machine),
    ("the runs were measured by different versions", lambda r: tuple(sorted(r.versions.items()))),
)


def _unlike(runs: Sequence[RunFiles]) -> Iterator[str]:
    for text, read in _UNLIKE:
        values = list(dict.fromkeys(read(run.report) for run in runs))
        if len(values) > 1:
            yield f"{text}: {'; '.join(map(_words, values))}"
    for run in runs:
        for problem in run.problems:
            yield f"{run.name}: {problem}"
    if all(run.report.latency is not None for run in runs) and len(runs) > 1:
        yield "latency was taken in each run's own report, not side by side; `drc bench` does that"


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_words(part) for part in value)
    return "not measured" if value is None else str(value) or "not known"


def print_comparison(found: Comparison, file: IO[str]) -> None:
    """Write the table and the notes."""
    console = Console(file=file, highlight=False, width=None if file.isatty() else 160)
    table = Table()
    for place, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if place < 2 else "right")
    for row in table_rows(found.runs):
        table.add_row(*map(Text, row))  # a name may look like rich's markup
    console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)


def comparison_markdown(found: Comparison) -> str:
    """The same as Markdown, ending in a newline."""
    lines = [_line(HEADINGS), _line(("---", "---", *["---:"] * (len(HEADINGS) - 2)))]
    lines += [_line(cell.replace("|", "\\|") for cell in row) for row in table_rows(found.runs)]
    notes = "".join(f"\n> **Note:** {note}\n" for note in found.notes)
    return "\n".join(lines) + "\n" + notes


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


__all__ = [
    "HEADINGS",
    "Comparison",
    "compare",
    "comparison_markdown",
    "image_rows",
    "print_comparison",
    "table_rows",
]

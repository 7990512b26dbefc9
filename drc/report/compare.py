"""Several runs beside each other: their figures in one table, and what makes them unlike."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from drc.report.run_files import RunFiles
from drc.report.schema import Report, Side
from drc.report.table import MISSING, Table, console, difference, figure, giga, relative

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


def dense_labels(runs: Sequence[RunFiles]) -> list[str]:
    """What to call the dense network of each run; one that several share has one name.

    Networks that differ in their weights alone are named apart by the run that comes first.
    """
    first: dict[Hashable, RunFiles] = {}
    for run in runs:
        first.setdefault(_dense_key(run), run)
    often = Counter(run.report.network for run in first.values())
    names = {
        key: f"{run.report.network}, dense"
        + (f" ({run.name})" if often[run.report.network] > 1 else "")
        for key, run in first.items()
    }
    return [names[_dense_key(run)] for run in runs]


def _dense_key(run: RunFiles) -> Hashable:
    """Equal for equal networks: by their weights where a plan names those."""
    report = run.report
    return (run.plan and run.plan.base_checksum) or (
        report.network,
        report.weights,
        report.before.params,
    )


def figures_table(runs: Sequence[RunFiles]) -> Table:
    """Every dense network once, then every run with its change from its own dense network."""
    dense: dict[str, Side] = {}
    for label, run in zip(dense_labels(runs), runs, strict=True):
        dense.setdefault(label, run.report.before)
    rows = [(label, MISSING, *_cells(side, None)) for label, side in dense.items()]
    for run in runs:
        report, plan = run.report, run.report.plan
        words = f"{plan.budget} {plan.ratio:.0%}, {plan.strategy}"
        if not report.recovered:
            words += ", not recovered"
        rows.append((run.name, words, *_cells(report.after, report.before)))
    figures = ("parameters", "MACs", "PSNR (dB)", "SSIM", "latency (ms)")
    return Table(("network", "plan", *figures), rows, align="ll")


def _cells(side: Side, dense: Side | None) -> Iterator[str]:
    def changed(text: str, change: str) -> str:
        return text if dense is None or MISSING in (text, change) else f"{text} ({change})"

    base = dense or side
    yield changed(f"{side.params:,}", relative(base.params, side.params))
    yield changed(giga(side.macs), relative(base.macs, side.macs))
    yield changed(figure(side.psnr, 2), difference(base.psnr, side.psnr, 2))
    yield figure(side.ssim, 4)
    yield changed(figure(side.latency_ms, 1), relative(base.latency_ms, side.latency_ms))


def images_table(runs: Sequence[RunFiles]) -> Table:
    """PSNR of every test image after each run, for images that all runs measured."""
    per_run = [{i.name: i.psnr_after for i in run.report.data.images} for run in runs]
    rows = [
        (name, *(figure(found[name], 2) for found in per_run))
        for name in per_run[0]
        if all(name in found for found in per_run)
    ]
    return Table(("image", *(run.name for run in runs)), rows)


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
    out = console(file, plain_width=160)
    out.print(figures_table(found.runs).rich())
    for note in found.notes:
        out.print(f"note: {note}", markup=False)


def comparison_markdown(found: Comparison) -> str:
    """The same as Markdown, ending in a newline."""
    notes = "".join(f"\n> **Note:** {note}\n" for note in found.notes)
    return figures_table(found.runs).markdown() + "\n" + notes

"""The papers' networks as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from drc.report.paper import Measured, Published, Row
from drc.report.rows import MISSING

_PLAIN_WIDTH = 150


def print_paper(rows: Sequence[Row], file: IO[str]) -> None:
    """Write the table and, below it, why cells are empty and what the columns mean."""
    console = Console(file=file, highlight=False, width=None if file.isatty() else _PLAIN_WIDTH)
    console.print(_table(rows))
    for names, problem in _problems(rows):
        console.print(Text.assemble((f"{names}: ", "bold"), problem), soft_wrap=True)
    counter = rows[0][1].counter if rows else ""
    console.print(
        f"params and MACs (LR 96x96, counted by {counter}) are of networks built now; paper: as "
        "published; a dual model is not counted; PSNR and SSIM on Y, 8 bits, no border of the scale"
    )


def _table(rows: Sequence[Row]) -> Table:
    sets = list(dict.fromkeys(name for _, found in rows for name in found.quality))
    table = Table(title="The papers' networks before and after compression", title_justify="left")
    table.add_column("network")
    headings = ("params", "paper", "differ", "removed", "G MACs", "paper", "differ", "removed")
    for heading in (*headings, "paper PSNR / SSIM", *sets):
        table.add_column(heading, justify="right")
    by_name = {(entry.model, entry.scale): found for entry, found in rows}
    for entry, found in rows:
        dense = by_name.get((entry.dense or "", entry.scale))
        table.add_row(*_cells(entry, found, dense, sets), end_section=_ends(rows, entry))
    return table


def _cells(
    entry: Published, found: Measured, dense: Measured | None, sets: Sequence[str]
) -> Iterator[str]:
    yield f"{'  ' if entry.dense else ''}{entry.model} x{entry.scale}"
    yield f"{found.params:,}"
    yield f"{entry.params:,}"
    yield f"{found.params - entry.params:+,}" if found.params != entry.params else "0"
    yield MISSING if dense is None else f"{1 - found.params / dense.params:.1%}"
    yield f"{found.macs / 1e9:.2f}"
    yield f"{entry.macs_g:.2f}"
    yield f"{found.macs / 1e9 / entry.macs_g - 1:+.2%}"
    yield MISSING if dense is None else f"{1 - found.macs / dense.macs:.1%}"
    ssim = MISSING if entry.ssim is None else f"{entry.ssim:.3f}"
    yield f"{entry.data} {entry.psnr:.2f} / {ssim}"
    for name in sets:
        quality = found.quality.get(name)
        yield MISSING if quality is None else f"{quality[0]:.2f} / {quality[1]:.4f}"


def _ends(rows: Sequence[Row], entry: Published) -> bool:
    """Whether the next network is of another family."""
    following = [other for other, _ in rows[[e for e, _ in rows].index(entry) + 1 :]]
    return bool(following) and following[0].dense is None


def _problems(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Each reason once, with the networks it holds for."""
    reasons: dict[str, list[str]] = {}
    for entry, found in rows:
        if found.problem:
            reasons.setdefault(found.problem, []).append(f"{entry.model} x{entry.scale}")
    for problem, names in reasons.items():
        every = len(names) == len(rows)
        yield ("no quality measured" if every else f"not measured, {', '.join(names)}"), problem


__all__ = ["print_paper"]

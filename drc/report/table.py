"""A table of texts, for the terminal and as Markdown; and how figures are written in its cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

MISSING = "-"


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        headings: of the columns.
        rows: their cells, each row as long as `headings`.
        title: what stands above it; empty for nothing.
        align: `l` or `r` for each column, from the left; columns beyond have figures, on the right.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    align: str = "l"

    def _alignment(self) -> str:
        return self.align.ljust(len(self.headings), "r")

    def rich(self, *, bare: bool = False) -> RichTable:
        """The table for a terminal; `bare` without lines."""
        title = Text(self.title) if self.title else None  # a name may look like rich's markup
        table = RichTable(title=title, title_justify="left", pad_edge=not bare)
        if bare:
            table.box = None
        for heading, align in zip(self.headings, self._alignment(), strict=True):
            if align == "l":
                table.add_column(heading, overflow="fold")
            else:
                table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def markdown(self) -> str:
        """The table as Markdown, without its title and without a newline at the end."""
        ruler = ["---" if align == "l" else "---:" for align in self._alignment()]
        rows = [[escape_bars(cell) for cell in row] for row in self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.headings, ruler, *rows))


def escape_bars(text: str) -> str:
    """Keep a bar in a name from ending a cell of Markdown."""
    return text.replace("|", "\\|")


def console(file: IO[str], plain_width: int = 120) -> Console:
    """What prints tables to `file`; where that is no terminal, 80 columns would wrap the paths."""
    return Console(file=file, highlight=False, width=None if file.isatty() else plain_width)


def print_facts(
    out: Console, facts: Iterable[tuple[str, str]], style: str = "bold", *, wrap: bool = True
) -> None:
    """Print names with their sentences, a line each; a path must not wrap to be copied."""
    for name, text in facts:
        out.print(Text.assemble((f"{name}: ", style), text), soft_wrap=not wrap)


def figure(value: float | None, digits: int) -> str:
    """A figure, or a dash for one that was not measured."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def giga(macs: int) -> str:
    """Multiply-adds in units that keep four digits."""
    return f"{macs / 1e9:,.2f} G" if macs >= 1e9 else f"{macs / 1e6:,.2f} M"


def relative(before: float | None, after: float | None) -> str:
    """The change from `before` to `after` in per cent of `before`."""
    if before is None or after is None or before == 0:
        return MISSING
    return f"{(after - before) / before:+.1%}"


def difference(before: float | None, after: float | None, digits: int) -> str:
    """The change between two figures as they are shown, rounded to `digits`."""
    if before is None or after is None:
        return MISSING
    return f"{round(after, digits) - round(before, digits):+.{digits}f}"

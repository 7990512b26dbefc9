"""A report as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from drc.report.rows import facts, headings, rows, times, title
from drc.report.schema import Report


def print_table(report: Report, file: IO[str]) -> None:
    """Write the table before/after, the time of every step, the facts and the files to `file`."""
    # Without a terminal, 80 columns would wrap the paths.
    console = Console(file=file, highlight=False, width=None if file.isatty() else 120)
    console.print(_comparison(report))
    console.print(_steps(report))
    for name, text in facts(report):
        console.print(Text.assemble((f"{name}: ", "bold"), text))
    for note in report.notes:
        console.print(Text.assemble(("note: ", "bold yellow"), note))
    for name, text in _places(report):
        # No wrapping: a path must stay in one piece to be copied.
        console.print(Text.assemble((f"{name}: ", "bold"), text), soft_wrap=True)


def _places(report: Report) -> Iterator[tuple[str, str]]:
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


def _comparison(report: Report) -> Table:
    table = Table(title=Text(title(report)), title_justify="left")  # a name may look like markup
    table.add_column("")
    for heading in headings(report):
        table.add_column(heading, justify="right")
    for row in rows(report):
        table.add_row(row.name, row.before, row.pruned, row.after, row.change)
    return table


def _steps(report: Report) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column("step", style="bold")
    table.add_column("time", justify="right")
    for name, text in times(report):
        table.add_row(Text(name), text)
    return table

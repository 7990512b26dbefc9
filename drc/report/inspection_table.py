"""An inspection as tables for the terminal."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from drc.report.inspection import FrozenFacts, GroupFacts, Inspection
from drc.report.rows import MISSING, giga

_PLAIN_WIDTH = 120
_NUMBER = re.compile(r"\d+")
_Row = tuple[tuple[str, ...], tuple[str, ...]]  # texts, figures


def to_text(inspection: Inspection) -> str:
    """The tables without colours."""
    file = io.StringIO()
    print_inspection(inspection, file)
    return file.getvalue().rstrip()


def print_inspection(inspection: Inspection, file: IO[str]) -> None:
    """Write the groups, what stays, the notes and a summary to `file`."""
    console = Console(file=file, highlight=False, width=None if file.isatty() else _PLAIN_WIDTH)
    if inspection.groups:
        console.print(_groups(inspection))
    if frozen := [f for f in inspection.frozen if f.kind == "frozen"]:
        console.print(_frozen(frozen))
    for name, text in facts(inspection):
        console.print(Text.assemble((f"{name}: ", "bold"), text))


def facts(inspection: Inspection) -> list[tuple[str, str]]:
    """The lines under the tables: what never was a group, notes, summary."""
    lines = []
    ends = Counter(f.name for f in inspection.frozen if f.kind == "end")
    if ends:
        lines.append(("images in and out", ", ".join(ends)))
    singles = sum(f.kind == "single" for f in inspection.frozen)
    if singles:
        lines.append(("dimensions of size one", f"{singles}, which no layer can lose"))
    counts = sum(f.kind == "count" for f in inspection.frozen)
    if counts:
        lines.append(("dimensions that count heads or parts", f"{counts}, whose number stays"))
    lines += [("note", note) for note in inspection.notes]
    return [*lines, ("removable", summary(inspection))]


def summary(inspection: Inspection) -> str:
    """One line: how much of the network can be removed."""
    groups = len(inspection.groups)
    found = groups + sum(f.kind == "frozen" for f in inspection.frozen)
    text = (
        f"{groups} of {found} channel groups, with "
        f"{_share(inspection.params_removable, inspection.params)} of the "
        f"{inspection.params:,} parameters"
    )
    if inspection.macs is not None and inspection.macs_removable is not None:
        height, width = inspection.lr_size
        text += (
            f" and {_share(inspection.macs_removable, inspection.macs)} of the "
            f"{giga(inspection.macs)} MACs (LR {height}x{width})"
        )
    return text


def _groups(inspection: Inspection) -> Table:
    table = Table(title=f"{inspection.model}: removable channels", title_justify="left")
    table.add_column("group", overflow="fold")
    headings = ("groups", "channels", "blocks", "layers", "parameters", "share", "per channel")
    for heading in (*headings, "MACs"):
        table.add_column(heading, justify="right")
    rows: list[_Row] = [((g.name,), _figures(g, inspection.params)) for g in inspection.groups]
    for (name,), figures, count in _merged(rows):
        table.add_row(name, str(count), *figures)
    return table


def _figures(group: GroupFacts, params: int) -> tuple[str, ...]:
    return (
        str(group.channels),
        str(group.blocks),
        str(group.layers),
        f"{group.params:,}",
        _share(group.params, params),
        f"{group.params_per_channel:,}",
        MISSING if group.macs is None else giga(group.macs),
    )


def _frozen(frozen: list[FrozenFacts]) -> Table:
    table = Table(title="Channels that stay", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("groups", justify="right")
    table.add_column("channels", justify="right")
    table.add_column("because", overflow="fold")
    rows: list[_Row] = [((f.name, f.reason), (str(f.channels),)) for f in frozen]
    for (name, reason), (channels,), count in _merged(rows):
        table.add_row(name, str(count), channels, reason)
    return table


def _merged(rows: list[_Row]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], int]]:
    """Rows of equal figures whose texts differ in numbers alone as one, `*` for those numbers.

    Yields texts, figures, and how many rows they stand for, in the order of the first of each.
    """
    alike: dict[_Row, list[tuple[str, ...]]] = {}
    for texts, figures in rows:
        shape = tuple(_NUMBER.sub("*", text) for text in texts)
        alike.setdefault((shape, figures), []).append(texts)
    for (_, figures), found in alike.items():
        yield tuple(map(_pattern, zip(*found, strict=True))), figures, len(found)


def _pattern(texts: tuple[str, ...]) -> str:
    """The text they have in common; they differ in numbers only."""
    numbers = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    common = iter(n[0] if len(set(n)) == 1 else "*" for n in numbers)
    return _NUMBER.sub(lambda _: next(common), texts[0])


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else MISSING

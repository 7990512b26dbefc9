"""Tables as text, and which function makes those of a result file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        head: the titles of its columns.
        rows: its cells, each row as long as `head`.
        title: what stands above it; empty for nothing.
    """

    head: list[str]
    rows: list[list[str]]
    title: str = ""


_MAKERS: dict[str, Callable[[Row], list[Table]]] = {}


def shows(*names: str) -> Callable[[Callable[[Row], list[Table]]], Callable[[Row], list[Table]]]:
    """Make the decorated function that of the result files called `names`."""

    def add(maker: Callable[[Row], list[Table]]) -> Callable[[Row], list[Table]]:
        _MAKERS.update(dict.fromkeys(names, maker))
        return maker

    return add


def tables_of(name: str, result: Row) -> list[Table]:
    """The tables of the result file called `name`.

    Raises:
        KeyError: the file lacks a key.
        ValueError: no function is there for the file, or a table has no rows.
    """
    if name not in _MAKERS:
        raise ValueError(f"result_tables.py has no function for it; it has {', '.join(_MAKERS)}")
    tables = _MAKERS[name](result)
    for table in tables:
        if not table.rows:
            raise ValueError(f"the table {table.title or name!r} has no rows")
    return tables


def describe(result: Row) -> str:
    """A line on where a file comes from: its command, date, machine and version of torch."""
    machine = result["machine"]
    where = f"{machine['cpu']}, {_count(machine, 'cores')}, {_count(machine, 'threads')}"
    made = f"`{result['command']}`, {result['date']}"
    torch = result["versions"]["torch"]
    return f"Written by {made} (the last run that added to it); {where}; torch {torch}."


def _count(machine: Row, what: str) -> str:
    return f"{machine[what]} {what if machine[what] != 1 else what.removesuffix('s')}"

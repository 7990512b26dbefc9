"""The result file of the comparison: read, checked against the terms of a run, and added to."""

from __future__ import annotations

import fcntl
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import common

Row = dict[str, Any]


class Results:
    """The rows of one result file. Several runs may add to one file at a time.

    Args:
        name: the file is benchmarks/results/NAME.json.
        network: of all rows.
        terms: what all rows depend on; a file of other terms is refused, by leaving.
        baseline: measures what is said of the dense network; called for a new file only.
    """

    def __init__(self, name: str, network: str, terms: Row, baseline: Callable[[], Row]) -> None:
        self.name = name
        terms = json.loads(json.dumps(terms))
        old = common.read_result(name)
        if old:
            _check(self.path, {"network": network, **terms}, old)
        self.head = {"network": network, "terms": terms}
        self.head |= {key: old[key] for key in ("dense", "bicubic")} if old else baseline()

    @property
    def path(self) -> Path:
        return common.RESULTS / f"{self.name}.json"

    def find(self, row: Row) -> Row:
        """The row on file that is of the same method, ratio and seed, or `row` itself."""
        rows = common.read_result(self.name).get("rows", [])
        return next((old for old in rows if _key(old) == _key(row)), row)

    def save(self, row: Row) -> None:
        """Add a row, in place of an earlier one of the same method, ratio and seed."""
        with _locked(self.name):
            rows = common.read_result(self.name).get("rows", [])
            rows = [old for old in rows if _sample(old) != _sample(row)]
            rows = sorted([*rows, row], key=lambda r: (r["ratio"], r["method"], r["seed"]))
            common.write_result(self.name, {**self.head, "rows": rows}, say=False)


def _sample(row: Row) -> tuple:
    return row["method"], row["ratio"], row["seed"]


def _key(row: Row) -> tuple:
    """A method whose recipe has changed is another one."""
    return *_sample(row), json.dumps(row["recipe"], sort_keys=True)


def _check(path: Path, terms: Row, old: Row) -> None:
    """Leave with a message when the rows on file were made on other terms.

    A setting that one side does not have yet counts as equal where it is off on the other.
    """
    ours, theirs = _flat(terms), _flat({"network": old["network"], **old["terms"]})
    differing = [
        key for key in {**ours, **theirs} if (ours.get(key) or 0) != (theirs.get(key) or 0)
    ]
    if differing:
        said = "; ".join(f"{k} {theirs.get(k)}, now {ours.get(k)}" for k in differing)
        sys.exit(
            f"{path} holds rows made on other terms ({said}); "
            "pass --name OTHER for a file of its own, or delete it"
        )


def _flat(values: Row) -> Row:
    """Nested settings by dotted names."""
    flat: Row = {}
    for key, value in values.items():
        inner = _flat(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}".rstrip("."): found for name, found in inner.items()}
    return flat


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Keep other runs from writing the same file meanwhile."""
    with (Path(tempfile.gettempdir()) / f"drc_{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

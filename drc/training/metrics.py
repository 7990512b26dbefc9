"""metrics.jsonl: how the losses of a training run went, one line per few steps."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drc.artifacts.atomic import write_text
from drc.errors import RunError


class Meter:
    """Means of named values since the last reading, and the seconds that the run has taken."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0
        self._before = 0.0
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time up to now, summed over the parts of a resumed run."""
        return self._before + time.perf_counter() - self._began

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def read(self) -> dict[str, float]:
        """The means, rounded to six digits; the next ones start from here."""
        means = {name: float(f"{x / self._count:.6g}") for name, x in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "count": self._count, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums, self._count = dict(state["sums"]), int(state["count"])
        self._before = float(state["seconds"])
        self._began = time.perf_counter()


class MetricsFile:
    """Appends lines of JSON.

    Args:
        path: the file; None to write nothing.
        step: the step to go on from; lines of later steps are dropped, at 0 all of them.

    Raises:
        RunError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None, step: int) -> None:
        self.path = path
        if path is not None:
            lines = _lines_until(path, step) if step else []
            write_text(path, "".join(f"{line}\n" for line in lines))

    def append(self, record: Mapping[str, float]) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise RunError(
                f"cannot write {self.path}: {error.strerror}; free some space or make it "
                "writable, then resume"
            ) from error


def _lines_until(path: Path, step: int) -> list[str]:
    """The whole lines of steps up to `step`; a killed run may leave half a line at the end."""
    try:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise RunError(f"cannot read {path}: {reason}") from error
    kept = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("step", step + 1) <= step:
            kept.append(line)
    return kept


__all__ = ["Meter", "MetricsFile"]

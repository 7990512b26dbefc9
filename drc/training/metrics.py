"""metrics.jsonl and trackers: how the losses of a training run went, every few steps."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate.tracking import TensorBoardTracker
from accelerate.utils import is_tensorboard_available

from drc.core.errors import RunError, UsageError
from drc.core.files import write_text


@dataclass
class Meter:
    """Means of named values since the last reading, the speed, and the time of the whole run.

    Attributes:
        sums: of the values since the last reading.
        count: of steps since then.
        images: of those steps, in all processes.
        busy: seconds of those steps, the waits for their batches among them.
        waited: seconds of those waits.
        before: seconds of the parts of a resumed run before this one.
    """

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    images: int = 0
    busy: float = 0.0
    waited: float = 0.0
    before: float = 0.0

    def __post_init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time up to now, summed over the parts of a resumed run."""
        return self.before + time.perf_counter() - self._began

    @property
    def rate(self) -> float:
        """Images per second since the last reading, measurements and checkpoints left out."""
        return self.images / self.busy if self.busy else 0.0

    def add(self, values: Mapping[str, float], images: int, busy: float, waited: float) -> None:
        """Take in one step: what to average, and what the attributes of these names add up."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        self.images += images
        self.busy += busy
        self.waited += waited

    def read(self) -> dict[str, float]:
        """The means, rounded to six digits, and the speed; the next ones start from here."""
        means = {name: float(f"{x / self.count:.6g}") for name, x in self.sums.items()}
        means["patches_per_second"] = float(f"{self.rate:.4g}")
        means["waiting"] = round(self.waited / self.busy, 4) if self.busy else 0.0
        self.sums, self.count, self.images, self.busy, self.waited = {}, 0, 0, 0.0, 0.0
        return means

    def state_dict(self) -> dict[str, Any]:
        """What `Meter(**state)` goes on from."""
        return {**asdict(self), "before": self.seconds}


class MetricsFile:
    """Appends lines of JSON, and hands them to a tracker.

    Args:
        path: the file; None to write nothing.
        step: the step to go on from; lines of later steps are dropped, at 0 all of them.
        log_with: name of a tracker, which writes to a folder of that name beside the file.

    Raises:
        RunError: the file cannot be read or written.
        UsageError: the tracker is not installed.
    """

    def __init__(self, path: Path | None, step: int, log_with: str | None = None) -> None:
        self.path = path
        self._tracker = None
        if path is not None and log_with is not None:
            self._tracker = _tracker(path.parent / log_with, step)
        if path is not None:
            lines = _lines_until(path, step) if step else []
            write_text(path, "".join(f"{line}\n" for line in lines))

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracker is not None:
            self._tracker.finish()

    def append(self, record: Mapping[str, float]) -> None:
        if self.path is None:
            return
        if self._tracker is not None:
            values = {name: value for name, value in record.items() if name != "step"}
            self._tracker.log(values, step=int(record["step"]))
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise RunError(
                f"cannot write {self.path}: {error.strerror}; free some space or make it "
                "writable, then resume"
            ) from error


def require_tracker(name: str | None) -> None:
    """Raise UsageError unless what the setting `log_with` names is installed."""
    if name is not None and not is_tensorboard_available():
        raise UsageError(
            "tensorboard is not installed; pip install 'drc-sr[tensorboard]', or leave log_with out"
        )


def _tracker(folder: Path, step: int) -> TensorBoardTracker:
    require_tracker(folder.name)
    # What an earlier part of the run wrote of later steps is hidden from then on.
    tracker = TensorBoardTracker(folder.name, folder.parent, purge_step=step + 1)
    tracker.start()
    return tracker


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

"""The run folder: what one compression or training leaves on disk, and how it is found again.

`steps.json` tells the truth at every instant: a step is written as begun before it starts and as
finished once its result is on disk; what belongs to an older attempt is gone before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from drc.core.errors import RunError
from drc.core.files import TEMPORARY, write_json, write_yaml
from drc.store.claim import DEFAULT_ROOT, STEPS_FILE, claim, claim_default
from drc.store.plan import check_version, read_yaml

SCHEMA_VERSION = 1
_FORMAT = "drc-run"
_LONGEST = 1e12  # seconds

COMPRESSION = "compression"
_STARTED_BY = {COMPRESSION: "search", "training": "train", "adaptation": "adapt"}
"""Kind of run -> the command that starts one."""

STEPS = ("search", "prune", "finetune", "report")
"""Of a compression, in their order."""


class _Inside:
    """A path inside a run folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: RunFolder, _: type) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Make one with `create`, `open`, `newest` or `find`."""

    path: Path

    config_path = _Inside("config.yaml")
    steps_path = _Inside(STEPS_FILE)
    plan_path = _Inside("plan.yaml")
    plans_path = _Inside("plans")  # a plan for each of several ratios
    dual_path = _Inside("dual.safetensors")
    pruned_path = _Inside("pruned.safetensors")
    finetuned_path = _Inside("finetuned.safetensors")
    trained_path = _Inside("trained.safetensors")  # by a training or an adaptation
    start_dual_path = _Inside("start_dual.safetensors")  # the one an adaptation started with
    estimate_path = _Inside("degradation.json")  # how the images without HR were made
    inventory_path = _Inside("images.tsv")  # the training images
    checkpoint_path = _Inside("last.ckpt")
    metrics_path = _Inside("metrics.jsonl")
    report_path = _Inside("report.json")
    markdown_path = _Inside("report.md")
    page_path = _Inside("report.html")
    plots_path = _Inside("plots")
    kernels_path = _Inside("kernels.png")
    previous_path = _Inside(".previous")  # what a step that has begun is to replace

    @classmethod
    def create(
        cls,
        output: Path | str | None,
        model: str,
        scale: int,
        config: dict[str, Any],
        kind: str = COMPRESSION,
    ) -> RunFolder:
        """Make a new run folder holding `config.yaml` and an empty `steps.json`.

        Args:
            output: where; None for `runs/<model>_x<scale>_<date>-<time>`, with the command that
                starts such a run in front where that is not `search`, and `-2`, `-3`, ... after
                it when that is taken.
            model: registered name, or the class of a network of the user's.
            scale: HR side over LR side.
            config: resolved settings, plain types.
            kind: `compression`, `training` or `adaptation`.

        Raises:
            RunError: `output` is not empty or is a file, or the system refuses.
        """
        stem = model if kind == COMPRESSION else f"{_STARTED_BY[kind]}_{model}"
        run = cls(claim_default(stem, scale) if output is None else claim(Path(output)))
        run.write_config(config)
        # Last, because this file is what makes the folder a run.
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
        head = {"format": _FORMAT, "schema_version": SCHEMA_VERSION, "created": now}
        facts = {"kind": kind, "model": model, "scale": scale, "steps": {}}
        write_json(run.steps_path, {**head, **facts})
        return run

    @classmethod
    def open(cls, path: Path | str, kind: str | None = COMPRESSION) -> RunFolder:
        """Open an existing run folder, of a kind, or of any for None.

        Raises:
            RunError: the folder is missing or holds no run, one of another kind or of a newer drc.
        """
        run = cls(Path(path))
        start = _STARTED_BY[kind or COMPRESSION]
        if not run.path.is_dir():
            raise RunError(f"there is no run folder {path}; run `drc {start}` first")
        if not run.steps_path.is_file():
            raise RunError(f"{path} is not a drc run folder: it holds no {run.steps_path.name}")
        if run.kind != (kind or run.kind):
            raise RunError(
                f"{path} is a run of `drc {_STARTED_BY.get(run.kind, run.kind)}`, and this command "
                f"goes on with those of `drc {start}`"
            )
        return run

    @classmethod
    def newest(cls, root: Path | str = DEFAULT_ROOT, kind: str | None = COMPRESSION) -> RunFolder:
        """The run of a kind, or of any for None, under `root` that was created last.

        Other folders are passed over.

        Raises:
            RunError: there is no run, or a run's record is damaged.
        """
        runs = [cls(steps.parent) for steps in Path(root).glob(f"*/{cls(Path()).steps_path.name}")]
        runs = [run for run in runs if run.kind == (kind or run.kind)]
        if not runs:
            start = _STARTED_BY[kind or COMPRESSION]
            raise RunError(f"no run in {Path(root)}/; run `drc {start}` first, or pass --run DIR")
        return max(runs, key=lambda run: (str(run._read_record()["created"]), run.path.name))

    @classmethod
    def find(
        cls,
        run: Path | str | None,
        root: Path | str = DEFAULT_ROOT,
        kind: str | None = COMPRESSION,
    ) -> RunFolder:
        """Open `run`, or the newest one for None. Raises RunError as those do."""
        return cls.newest(root, kind) if run is None else cls.open(run, kind)

    @property
    def kind(self) -> str:
        """What sort of run it is. Raises RunError when its record is damaged."""
        return str(self._read_record().get("kind", COMPRESSION))

    def plan_of_ratio(self, ratio: float) -> Path:
        """Where the plan for one of several ratios lies: `plans/ratio_0.50.yaml`."""
        short = f"{ratio:.2f}"
        return self.plans_path / f"ratio_{short if float(short) == ratio else ratio}.yaml"

    @property
    def compressed_path(self) -> Path:
        """The network that the run has made so far: the recovered one, else the pruned one.

        Raises:
            RunError: none is finished.
        """
        for step, path in (("finetune", self.finetuned_path), ("prune", self.pruned_path)):
            if self.finished(step):
                return path
        raise missing(self.pruned_path, "pruned network", "drc prune")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A block in which no other command writes into the folder.

        Raises:
            RunError: another command is at work there.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"another command is at work in {self.path}; wait for it, or name another run"
            ) from None
        except OSError as error:
            raise RunError(f"cannot lock {self.path}: {error.strerror}") from error
        with lock:
            for path in self.path.glob(".*"):
                if TEMPORARY.fullmatch(path.name):  # of a command that was killed
                    path.unlink(missing_ok=True)
            yield

    def read_config(self) -> dict[str, Any]:
        """The settings in `config.yaml`. Raises RunError when it is missing or corrupt."""
        return read_yaml(self.config_path, "the settings of the run; run `drc search` again")

    def write_config(self, config: dict[str, Any]) -> None:
        """Replace `config.yaml`, atomically. Raises RunError when the system refuses."""
        write_yaml(self.config_path, config)

    def read_steps(self) -> dict[str, dict[str, Any]]:
        """What the steps recorded, by step, in the order they were first begun.

        Raises:
            RunError: `steps.json` is missing or damaged.
        """
        return self._read_record()["steps"]

    def result_of(self, step: str) -> Path | None:
        """The file that a step of a compression is for; None for other steps."""
        names = {"search": "plan", "prune": "pruned", "finetune": "finetuned"}
        return getattr(self, f"{names[step]}_path") if step in names else None

    def finished(self, step: str) -> bool:
        """Whether the step's last attempt came to its end, and its result is there.

        Raises:
            RunError: as `read_steps`.
        """
        result = self.result_of(step)
        recorded = bool(self.read_steps().get(step, {}).get("finished"))
        return recorded and (result is None or result.is_file())

    def record(self, step: str, facts: dict[str, Any]) -> None:
        """Set one step's entry in `steps.json`, atomically; those of later steps go.

        Args:
            step: `search`, `prune`, `finetune`, ...
            facts: plain JSON values, such as `{"seconds": 12.5, "finished": True}`.

        Raises:
            RunError: `steps.json` is damaged, or the system refuses.
        """
        record = self._read_record()
        later = STEPS[STEPS.index(step) + 1 :] if step in STEPS else ()
        steps = {name: facts for name, facts in record["steps"].items() if name not in later}
        record["steps"] = {**steps, step: facts}
        write_json(self.steps_path, record)

    def restore_steps(self, steps: dict[str, dict[str, Any]]) -> None:
        """Put back what `read_steps` gave. Raises RunError as `record`."""
        write_json(self.steps_path, {**self._read_record(), "steps": steps})

    def discard(self) -> None:
        """Remove a new run's folder, unless it holds a plan or a checkpoint by now."""
        if self.plan_path.exists() or self.checkpoint_path.exists():
            return
        with suppress(OSError):
            shutil.rmtree(self.path)

    def _read_record(self) -> dict[str, Any]:
        try:
            record = json.loads(self.steps_path.read_text("utf-8"))
        except OSError as error:
            raise RunError(f"cannot read {self.steps_path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise RunError(self._damaged()) from error
        if not isinstance(record, dict) or record.get("format") != _FORMAT:
            raise RunError(self._damaged())
        check_version(record.get("schema_version"), SCHEMA_VERSION, self.steps_path)
        steps = record.get("steps")
        if not isinstance(steps, dict) or "created" not in record:
            raise RunError(self._damaged())
        if not all(map(_are_facts, steps.values())):
            raise RunError(self._damaged())
        return record

    def _damaged(self) -> str:
        return f"{self.steps_path} is damaged; move {self.path} away, or pass --run with another"


def missing(path: Path, what: str, command: str) -> RunError:
    """The error that says which command makes a file that is not there."""
    return RunError(f"{path.parent} holds no {what} ({path.name}); run `{command}` first")


def is_seconds(value: object) -> bool:
    """Whether a step can have taken that long; what a damaged file holds cannot be added up."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= _LONGEST


def _are_facts(facts: object) -> bool:
    """Whether those of a step can be read: its seconds, and what it says in words."""
    if not isinstance(facts, dict) or not is_seconds(facts.get("seconds", 0)):
        return False
    return all(isinstance(facts.get(name, ""), str) for name in ("calibration", "recovery"))

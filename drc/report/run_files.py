"""What a run folder tells beside its report: plans, training curves and settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from drc.artifacts.plan import Plan, check_version, first_problem
from drc.artifacts.run_folder import RunFolder
from drc.errors import RunError
from drc.report.schema import SCHEMA_VERSION, Report


@dataclass(frozen=True)
class Curve:
    """One training, as `metrics.jsonl` has it.

    Attributes:
        title: `recovery`, or that of a round.
        lines: the file's objects, one per logged step, steps rising.
    """

    title: str
    lines: list[dict[str, float]]

    def series(self, name: str) -> list[tuple[float, float]]:
        """`(step, value)` wherever the file has a number of that name."""
        return [
            (line["step"], line[name])
            for line in self.lines
            if name in line and math.isfinite(line[name])
        ]


@dataclass(frozen=True)
class RunFiles:
    """What there is of a run.

    Attributes:
        name: of the folder.
        report: its report.
        plan: the plan in use; None where it cannot be read.
        front: the plans of a search for several ratios, smallest ratio first.
        curves: of each round's recovery.
        problems: what is missing or unreadable, one sentence each.
    """

    name: str
    report: Report
    plan: Plan | None = None
    front: list[Plan] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_report(run: RunFolder) -> Report:
    """Read `report.json` back.

    Raises:
        RunError: there is none, it is damaged, or a newer drc wrote it.
    """
    path = run.report_path
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{run.path} holds no report ({path.name}); run `drc report --run {run.path}` first"
        ) from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RunError(_damaged(run, "it is not JSON")) from error
    if not isinstance(content, dict):
        raise RunError(_damaged(run, "it is not an object"))
    check_version(content.get("schema_version"), SCHEMA_VERSION, path)
    try:
        return Report.model_validate(content)
    except ValidationError as error:
        raise RunError(_damaged(run, first_problem(error))) from error


def read_run(run: RunFolder, report: Report) -> RunFiles:
    """Gather what lies beside the report; what cannot be read is named, not raised."""
    problems: list[str] = []
    plan = _plan(run.plan_path, problems)
    fronts = [_plan(path, problems) for path in sorted(run.front_path.glob("ratio_*.yaml"))]
    front = sorted((p for p in fronts if p is not None), key=lambda p: p.budget.ratio)
    curves = list(_curves(run))
    if report.recovered and not curves:
        problems.append(f"no training curves: {run.metrics_path.name} is missing or empty")
    if plan is not None and not run.first_round.path.is_dir():
        now = {name: (width.keep, width.of) for name, width in plan.groups.items()}
        if now != report.plan.groups:
            problems.append(
                f"the report is of another plan than {run.plan_path.name}: measure again"
            )
    if run.finetuned_path.exists() != report.recovered:
        problems.append("the report was made without the recovery that the run has: measure again")
    name = run.path.resolve().name
    return RunFiles(name, report, plan, front, curves, problems)


def _plan(path: Path, problems: list[str]) -> Plan | None:
    try:
        return Plan.load(path)
    except RunError as error:
        problems.append(str(error))
        return None


def _curves(run: RunFolder) -> Iterator[Curve]:
    two = run.first_round.path.is_dir()
    rounds = [("round 1", run.first_round), ("round 2", run)] if two else [("recovery", run)]
    for title, folder in rounds:
        lines = list(_lines(folder.metrics_path))
        if lines:
            yield Curve(title, lines)


def _lines(path: Path) -> Iterator[dict[str, float]]:
    """The whole lines; a run that was killed may have left half a one."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for line in text.splitlines():
        try:
            content: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and isinstance(content.get("step"), (int, float)):
            yield {k: v for k, v in content.items() if isinstance(v, (int, float))}


def _damaged(run: RunFolder, why: str) -> str:
    return f"{run.report_path} is damaged ({why}); run `drc report --run {run.path}` again"


__all__ = ["Curve", "RunFiles", "read_report", "read_run"]

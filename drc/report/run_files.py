"""What a run folder tells beside its report: plans, training curves and settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import from_json

from drc.core.errors import RunError
from drc.report.schema import SCHEMA_VERSION, Report
from drc.store.plan import Plan, check_version, first_problem
from drc.store.run_folder import RunFolder

_LARGEST = 1e100
"""Of the values and steps that are drawn; beyond, the arithmetic of an axis overflows."""


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
        """`(step, value)` wherever the file has a number of that name that can be drawn."""
        return [
            (line["step"], line[name])
            for line in self.lines
            if name in line and abs(line[name]) <= _LARGEST
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
        checksum: `fingerprint` of the dense network; empty where no plan tells it.
    """

    name: str
    report: Report
    plan: Plan | None = None
    front: list[Plan] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    checksum: str = ""


def read_report(run: RunFolder) -> Report:
    """Read `report.json` back.

    Raises:
        RunError: there is none, it is damaged, or a newer drc wrote it.
    """
    path = run.report_path
    try:
        content = from_json(path.read_bytes())
    except FileNotFoundError:
        raise RunError(
            f"{run.path} holds no report ({path.name}); run `drc report --run {run.path}` first"
        ) from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RunError(_damaged(run, f"it is not JSON: {error}")) from error
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
    fronts = [_plan(path, problems) for path in sorted(run.plans_path.glob("ratio_*.yaml"))]
    front = sorted((p for p in fronts if p is not None), key=lambda p: p.budget.ratio)
    curves = list(_curves(run, problems))
    if report.recovered and not curves:
        problems.append(f"no training curves: {run.metrics_path.name} is missing or empty")
    if plan is not None:
        now = {name: (width.keep, width.of) for name, width in plan.groups.items()}
        if now != report.plan.groups:
            problems.append(
                f"the report is of another plan than {run.plan_path.name}: measure again"
            )
    if run.finetuned_path.exists() != report.recovered:
        problems.append("the report was made without the recovery that the run has: measure again")
    name = run.path.resolve().name
    checksum = plan.base_checksum if plan is not None else ""
    return RunFiles(name, report, plan, front, curves, problems, checksum)


def _plan(path: Path, problems: list[str]) -> Plan | None:
    try:
        return Plan.load(path)
    except RunError as error:
        problems.append(str(error))
        return None


def _curves(run: RunFolder, problems: list[str]) -> Iterator[Curve]:
    lines = _lines(run.metrics_path, problems)
    if lines:
        yield Curve("recovery", lines)


def _lines(path: Path, problems: list[str]) -> list[dict[str, float]]:
    """The whole lines; a run that was killed may have left half a one at the end."""
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"cannot read {path}: {error.strerror}")
        return []
    found = [_line(text) for text in texts]
    damaged = sum(line is None for line in found[:-1])
    if damaged:
        problems.append(f"{path} is damaged: its curves lack {damaged} of {len(found)} lines")
    return [line for line in found if line is not None]


def _line(text: bytes) -> dict[str, float] | None:
    try:
        content = from_json(text)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    numbers = {k: v for k, v in content.items() if type(v) in (int, float)}
    return numbers if 0 <= numbers.get("step", -1) <= _LARGEST else None


def _damaged(run: RunFolder, why: str) -> str:
    return f"{run.report_path} is damaged ({why}); run `drc report --run {run.path}` again"


__all__ = ["Curve", "RunFiles", "read_report", "read_run"]

"""What a run folder holds beside its report: plans, and the metrics of the recovery."""

from __future__ import annotations

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
class RunFiles:
    """What there is of a run.

    Attributes:
        name: of the folder.
        report: its report.
        plan: the plan in use; None where it cannot be read.
        plans: those of a search for several ratios, smallest ratio first.
        metrics: the objects of `metrics.jsonl`, one per logged step of the recovery.
        problems: what is missing or unreadable, one sentence each.
    """

    name: str
    report: Report
    plan: Plan | None = None
    plans: list[Plan] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def series(self, name: str) -> list[tuple[float, float]]:
        """`(step, value)` wherever the metrics have a number of that name that can be drawn."""
        return [
            (line["step"], line[name])
            for line in self.metrics
            if name in line and abs(line[name]) <= _LARGEST
        ]


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
    found = [_plan(path, problems) for path in sorted(run.plans_path.glob("ratio_*.yaml"))]
    plans = sorted((p for p in found if p is not None), key=lambda p: p.budget.ratio)
    metrics = _metrics(run.metrics_path, problems)
    if report.recovered and not metrics:
        problems.append(f"no training curves: {run.metrics_path.name} is missing or empty")
    if plan is not None:
        now = {name: (width.keep, width.of) for name, width in plan.groups.items()}
        if now != report.plan.groups:
            problems.append(
                f"the report is of another plan than {run.plan_path.name}: measure again"
            )
    if run.finetuned_path.exists() != report.recovered:
        problems.append("the report was made without the recovery that the run has: measure again")
    return RunFiles(run.path.resolve().name, report, plan, plans, metrics, problems)


def _plan(path: Path, problems: list[str]) -> Plan | None:
    try:
        return Plan.load(path)
    except RunError as error:
        problems.append(str(error))
        return None


def _metrics(path: Path, problems: list[str]) -> list[dict[str, float]]:
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

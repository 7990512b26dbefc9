"""The steps between a network and its compressed form, as `drc.api` puts them together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from torch import nn

from drc.core.distributed import on_first
from drc.core.errors import BudgetError, ModelError, RunError, UsageError
from drc.core.randomness import RandomState
from drc.graph.groups import ChannelGraph
from drc.networks.traits import get_traits
from drc.selection.calibration import Calibration
from drc.selection.pruning import cut_and_refit, rank
from drc.selection.widths.base import score_together
from drc.selection.widths.problem import build_problem, solve_budget
from drc.settings.runs import PruneSettings, SearchSettings
from drc.store.plan import Budget, FrozenChannels, GroupWidth, Plan, fingerprint, first_problem

Loader = Iterable[Any]
Validated = TypeVar("Validated", bound=BaseModel)


def plan_widths(
    model: nn.Module, calibration: Calibration, settings: SearchSettings, notes: list[str]
) -> Plan:
    """The plan for the one ratio of the settings; the same in all processes.

    Raises:
        BudgetError: no widths meet the budget.
    """
    score_together(calibration, settings)
    return on_first(lambda: _plan_widths(model, calibration, settings, notes))


def _plan_widths(
    model: nn.Module, calibration: Calibration, settings: SearchSettings, notes: list[str]
) -> Plan:
    graph, notes = calibration.graph, list(notes)
    problem = build_problem(calibration, settings, notes)
    solution = solve_budget(problem, notes)
    widths, loss = problem.named(solution.widths), solution.expected_loss
    traits = get_traits(model)
    return Plan(
        model=traits.preset or type(model).__qualname__,
        scale=traits.scale,
        base_checksum=fingerprint(model),
        strategy=settings.strategy,
        groups={g.name: GroupWidth(keep=widths[g.name], of=g.size) for g in graph.groups},
        budget=Budget(
            kind=settings.budget,
            ratio=settings.ratio,
            before=problem.cost(problem.dense),
            limit=problem.limit,
            predicted=problem.cost(solution.widths),
            lr_size=None if settings.budget == "params" else settings.lr_size,
        ),
        seed=calibration.seed,
        expected_loss=None if loss is None or not math.isfinite(loss) else loss,
        notes=notes,
        frozen=[
            FrozenChannels(name=f.name, channels=f.size, reason=f.reason) for f in graph.frozen
        ],
    )


@dataclass(frozen=True)
class Front:
    """The plans of one search for several ratios.

    Attributes:
        plans: for the ratios that can be reached, in the order given.
        missed: for each of the others, why there is no plan.
    """

    plans: list[Plan]
    missed: dict[float, str]


def plan_front(
    model: nn.Module, calibration: Calibration, settings: SearchSettings, notes: list[str]
) -> Front:
    """A plan for each of `settings.ratios`, each as a search for it alone finds it.

    What a strategy has read off the calibration data for one ratio serves the others. All
    processes get the plans of the first.

    Raises:
        BudgetError: none of the ratios can be reached.
    """
    score_together(calibration, settings)
    return on_first(lambda: _plan_front(model, calibration, settings, notes))


def check_goal(calibration: Calibration, goal: SearchSettings) -> None:
    """Raise BudgetError when a later round cannot reach `goal`."""
    on_first(lambda: build_problem(calibration, goal, []).check_reachable())


def _plan_front(
    model: nn.Module, calibration: Calibration, settings: SearchSettings, notes: list[str]
) -> Front:
    device = next(calibration.model.parameters()).device
    state = RandomState.capture(device)
    front = Front([], {})
    for ratio in settings.ratios:
        state.restore(device)
        try:
            alone = settings.model_copy(update={"ratio": ratio, "front": ()})
            front.plans.append(_plan_widths(model, calibration, alone, notes))
        except BudgetError as error:
            front.missed[ratio] = str(error)
    if not front.plans:
        raise BudgetError(front.missed[min(front.missed)])
    return front


def cut_by_plan(
    model: nn.Module, calibration: Calibration, plan: Plan, settings: PruneSettings
) -> nn.Module:
    """Rank the channels, cut those the plan has no room for, and refit what read them.

    Raises:
        RunError: the plan belongs to other weights.
        ModelError: the plan's groups are not the network's.
    """
    check_plan(model, plan)
    _check_groups(calibration.graph, plan)
    widths = {name: width.keep for name, width in plan.groups.items()}
    keep = rank(calibration, widths, settings)
    small = cut_and_refit(calibration, keep, settings.reconstruct)
    return small.to(next(model.parameters()).device)


def check_plan(model: nn.Module, plan: Plan) -> None:
    """Raise RunError unless `plan` was made for these very weights."""
    if plan.base_checksum != fingerprint(model):
        raise RunError("the plan was made for other weights; search this network again")


def _check_groups(graph: ChannelGraph, plan: Plan) -> None:
    found = {group.name: group.size for group in graph.groups}
    for name, width in plan.groups.items():
        if found.get(name) != width.of:
            raise ModelError(
                f"the plan has a group {name} of {width.of} channels, the network has "
                f"{found.get(name, 'no such group')}; search this network again"
            )


def checked(**values: Any) -> SearchSettings:
    """Search settings with the given values. Raises UsageError."""
    return validated(SearchSettings, values)


def validated(cls: type[Validated], values: dict[str, Any]) -> Validated:
    """Build a settings object; a value out of its range becomes a UsageError of one line."""
    try:
        return cls(**values)
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None

"""From calibration to plans, and from a plan to the smaller network."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from drc.core.distributed import on_first
from drc.core.errors import BudgetError, ModelError, RunError
from drc.core.randomness import RandomState
from drc.graph.groups import ChannelGraph
from drc.networks.traits import get_traits
from drc.selection.calibration import Calibration
from drc.selection.pruning import cut_and_refit, rank
from drc.selection.widths.base import score_together
from drc.selection.widths.problem import build_problem, solve_budget
from drc.settings import PruneSettings, SearchSettings
from drc.store.plan import Budget, FrozenChannels, GroupWidth, Plan, fingerprint


@dataclass(frozen=True)
class Plans:
    """The plans of one search, for one ratio or several.

    Attributes:
        plans: for the ratios that can be reached, in the order given.
        missed: for each of the others, why there is no plan.
    """

    plans: list[Plan]
    missed: dict[float, str]


def search_plans(
    model: nn.Module, calibration: Calibration, settings: SearchSettings, notes: list[str]
) -> Plans:
    """A plan for each of `settings.ratios`, each as a search for it alone finds it.

    What a strategy has read off the calibration data for one ratio serves the others. All
    processes get the plans of the first.

    Raises:
        BudgetError: none of the ratios can be reached.
    """
    score_together(calibration, settings)
    return on_first(lambda: _search_plans(model, calibration, settings, notes))


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


def _search_plans(
    model: nn.Module, calibration: Calibration, settings: SearchSettings, notes: list[str]
) -> Plans:
    device = next(calibration.model.parameters()).device
    state = RandomState.capture(device)
    found = Plans([], {})
    for ratio in settings.ratios:
        state.restore(device)
        try:
            alone = settings.model_copy(update={"ratio": ratio, "front": ()})
            found.plans.append(_plan(model, calibration, alone, notes))
        except BudgetError as error:
            found.missed[ratio] = str(error)
    if not found.plans:
        raise BudgetError(found.missed[min(found.missed)])
    return found


def _plan(
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


def _check_groups(graph: ChannelGraph, plan: Plan) -> None:
    found = {group.name: group.size for group in graph.groups}
    for name, width in plan.groups.items():
        if found.get(name) != width.of:
            raise ModelError(
                f"the plan has a group {name} of {width.of} channels, the network has "
                f"{found.get(name, 'no such group')}; search this network again"
            )

"""The steps between a network and its compressed form, as `drc.api` puts them together."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from drc.core.distributed import on_first
from drc.core.errors import BudgetError, ModelError, RunError, UsageError
from drc.core.randomness import RandomState
from drc.core.runtime import Progress, resolve_device, seed_everything
from drc.data.batches import BatchReader
from drc.graph.groups import ChannelGraph
from drc.graph.inputs import example_input
from drc.graph.surgery import KeepSets, copy_of, cut, kept_indices, removed
from drc.graph.trace import trace
from drc.graph.verify import check
from drc.networks.dual import AnyDual
from drc.networks.traits import get_traits
from drc.selection.criteria.base import Calibration, helper, keep_best, score
from drc.selection.criteria.dual_taylor import single_crops
from drc.selection.refit import refit
from drc.selection.widths.budget import build_problem, solve_budget
from drc.settings.runs import SearchSettings
from drc.store.plan import Budget, FrozenChannels, GroupWidth, Plan, fingerprint, first_problem
from drc.training.dual_fit import fit_dual

_REFIT_PIXELS = 64 * 64**2  # of LR images, which go through the network all at once

Loader = Iterable[Any]
Validated = TypeVar("Validated", bound=BaseModel)


def calibrate(
    model: nn.Module,
    loader: Loader,
    dual: AnyDual | None,
    settings: SearchSettings,
    device: str | torch.device,
    seed: int,
    progress: Progress | None = None,
    notes: list[str] | None = None,
    fit: bool = True,
) -> Calibration:
    """Trace a copy of the network and bring data and dual model together.

    Without a dual model one is fitted first, unless `fit` is off; `notes` then says so.
    """
    where = resolve_device(device)
    seed_everything(seed)
    traits = get_traits(model)
    reader = BatchReader(loader, traits.scale, traits.value_range, where, channels=traits.channels)
    if dual is None and fit and settings.dual_weight:
        dual = on_first(
            lambda: fit_dual(
                reader, traits.scale, traits.value_range, steps=settings.dual_steps, seed=seed,
                device=where, progress=progress,
            ).cpu()
        )  # fmt: skip
        if notes is not None:
            notes.append(
                "no trained dual model was given: one was fitted on the calibration data "
                f"in {settings.dual_steps} steps"
            )
    twin = copy_of(model).to(where).eval()
    return Calibration(
        model=twin,
        graph=trace(twin, example_input(twin, traits.channels)),
        batches=reader,
        dual=copy.deepcopy(dual).to(where).eval() if dual is not None else None,
        patches=settings.patches,
        dual_weight=settings.dual_weight,
        seed=seed,
        progress=progress,
    )


def plan_widths(
    model: nn.Module, calibration: Calibration, settings: SearchSettings, notes: list[str]
) -> Plan:
    """The plan for the one ratio of the settings; the same in all processes.

    Raises:
        BudgetError: no widths meet the budget.
    """
    return on_first(lambda: _plan_widths(model, calibration, settings, notes), helper(calibration))


def _plan_widths(
    model: nn.Module, calibration: Calibration, settings: SearchSettings, notes: list[str]
) -> Plan:
    graph, notes = calibration.graph, list(notes)
    problem = build_problem(calibration, settings, notes)
    widths = solve_budget(problem, notes)
    traits, loss = get_traits(model), problem.expected_loss
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
            predicted=problem.cost(widths),
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
    return on_first(lambda: _plan_front(model, calibration, settings, notes), helper(calibration))


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
    model: nn.Module,
    calibration: Calibration,
    plan: Plan,
    importance: str,
    reconstruct: bool = True,
) -> nn.Module:
    """Rank the channels, cut those the plan has no room for, and refit what read them.

    Raises:
        RunError: the plan belongs to other weights.
        ModelError: the plan's groups are not the network's.
    """
    check_plan(model, plan)
    _check_groups(calibration.graph, plan)
    calibration.widths = {name: width.keep for name, width in plan.groups.items()}
    keep, weights = on_first(
        lambda: _rank_and_refit(calibration, calibration.widths or {}, importance, reconstruct),
        helper(calibration),
    )
    small = cut(calibration.model, calibration.graph, keep).eval()
    small.load_state_dict(weights)
    return small.to(next(model.parameters()).device)


def _rank_and_refit(
    calibration: Calibration, widths: dict[str, int], importance: str, reconstruct: bool
) -> tuple[KeepSets, dict[str, torch.Tensor]]:
    """What stays, and the weights of the network that is left."""
    keep = keep_best(score(importance, calibration), widths)
    image = example_input(calibration.model, get_traits(calibration.model).channels)
    check(calibration.model, calibration.graph, keep, image)
    small = cut(calibration.model, calibration.graph, keep).eval()
    if reconstruct:
        _refit(calibration, small, keep)
    return keep, small.cpu().state_dict()


def _refit(calibration: Calibration, small: nn.Module, keep: KeepSets) -> None:
    crops: list[torch.Tensor] = []
    for lr, _ in single_crops(calibration):
        if crops and (len(crops) + 1) * lr[0, 0].numel() > _REFIT_PIXELS:
            break
        if not crops or lr.shape == crops[0].shape:
            crops.append(lr)
    images = torch.cat(crops)
    kept = kept_indices(calibration.graph, removed(calibration.graph, keep))
    refit(
        calibration.model, small, images, kept, seed=calibration.seed,
        progress=calibration.progress,
    )  # fmt: skip
    calibration.crop_passes += 2 * len(images)


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

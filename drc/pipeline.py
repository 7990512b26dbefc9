"""The steps between a network and its compressed form, as `drc.api` puts them together."""

from __future__ import annotations

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
from drc.graph.surgery import KeepSets, cut, kept_indices, removed
from drc.graph.trace import trace
from drc.graph.verify import check
from drc.networks.copying import copy_of
from drc.networks.dual import AnyDual
from drc.networks.traits import get_traits
from drc.selection.criteria.base import Calibration, helper, keep_best, score
from drc.selection.criteria.dual_taylor import single_crops
from drc.selection.refit import refit
from drc.selection.widths.budget import build_problem, solve_budget
from drc.settings.runs import PruneSettings, SearchSettings
from drc.store.plan import Budget, FrozenChannels, GroupWidth, Plan, fingerprint, first_problem

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
) -> Calibration:
    """Trace a copy of the network and bring data and dual model together."""
    where = resolve_device(device)
    seed_everything(seed)
    traits = get_traits(model)
    reader = BatchReader(loader, traits.scale, traits.value_range, where, channels=traits.channels)
    twin = copy_of(model).to(where).eval()
    return Calibration(
        model=twin,
        graph=trace(twin, example_input(twin, traits.channels)),
        batches=reader,
        dual=copy_of(dual).to(where).eval() if dual is not None else None,
        patches=settings.patches,
        dual_weight=settings.dual_weight,
        seed=seed,
        progress=progress,
    )


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
class Plans:
    """The plans of one search for several ratios.

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
    return on_first(lambda: _search_plans(model, calibration, settings, notes), helper(calibration))


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
            found.plans.append(_plan_widths(model, calibration, alone, notes))
        except BudgetError as error:
            found.missed[ratio] = str(error)
    if not found.plans:
        raise BudgetError(found.missed[min(found.missed)])
    return found


def cut_by_plan(
    model: nn.Module,
    calibration: Calibration,
    plan: Plan,
    options: PruneSettings,
) -> nn.Module:
    """Rank the channels, cut those the plan has no room for, and refit what read them.

    Raises:
        RunError: the plan belongs to other weights.
        ModelError: the plan's groups are not the network's.
    """
    check_plan(model, plan)
    _check_groups(calibration.graph, plan)
    calibration.settings = options
    calibration.widths = {name: width.keep for name, width in plan.groups.items()}
    keep, weights = on_first(
        lambda: _rank_and_refit(calibration, calibration.widths or {}, options),
        helper(calibration),
    )
    small = cut(calibration.model, calibration.graph, keep).eval()
    small.load_state_dict(weights)
    return small.to(next(model.parameters()).device)


def _rank_and_refit(
    calibration: Calibration, widths: dict[str, int], options: PruneSettings
) -> tuple[KeepSets, dict[str, torch.Tensor]]:
    """What stays, and the weights of the network that is left."""
    keep = keep_best(score(options.importance, calibration), widths)
    image = example_input(calibration.model, get_traits(calibration.model).channels)
    check(calibration.model, calibration.graph, keep, image)
    small = cut(calibration.model, calibration.graph, keep).eval()
    if options.reconstruct:
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

"""The steps between a network and its compressed form, as `drc.api` puts them together."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from drc.artifacts.plan import Budget, FrozenChannels, GroupWidth, Plan, fingerprint, first_problem
from drc.config import SearchSettings
from drc.data.batches import BatchReader
from drc.errors import ModelError, RunError, UsageError
from drc.evaluation.complexity import macs_per_weight
from drc.graph.cost import CostModel
from drc.graph.groups import ChannelGraph
from drc.graph.inputs import example_input
from drc.graph.surgery import copy_of, cut
from drc.graph.trace import trace
from drc.graph.verify import check
from drc.importance.base import Calibration, keep_best, score
from drc.models.dual import AnyDual
from drc.models.traits import get_traits
from drc.runtime import Progress, resolve_device, seed_everything
from drc.strategies.base import TOLERANCE, Problem, solve, width_options
from drc.training.dual_fit import fit_dual

MACS_LR_SIZE = (96, 96)
"""The LR input at which MACs are counted, as in the papers."""

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
        dual = fit_dual(
            reader, traits.scale, traits.value_range, steps=settings.dual_steps, seed=seed,
            device=where, progress=progress,
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
    graph, macs = calibration.graph, settings.budget == "macs"
    per_tensor = macs_per_weight(calibration.model, MACS_LR_SIZE) if macs else None
    cost = CostModel(graph, calibration.model, per_tensor)
    before = cost(cost.dense)
    elsewhere = per_tensor[""] / before if per_tensor else 0.0
    if elsewhere > TOLERANCE:
        notes = [
            *notes,
            f"{elsewhere:.0%} of the MACs are spent outside the weights of layers and predicted "
            "as constant: the true count may be lower",
        ]
    limit = int(before * (1 - settings.ratio))
    problem = Problem(
        calibration=calibration,
        cost=cost,
        limit=limit,
        options=[width_options(g, settings.round_to, settings.min_width) for g in graph.groups],
        what="MACs" if macs else "parameters",
        settings=settings,
    )
    widths = solve(settings.strategy, problem)
    predicted = cost(widths)
    if predicted < (1 - TOLERANCE) * limit:
        notes = [
            *notes,
            f"no plan within {TOLERANCE:.0%} of the budget was found: this one removes "
            f"{1 - predicted / before:.1%}",
        ]
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
            before=before,
            limit=limit,
            predicted=predicted,
            lr_size=MACS_LR_SIZE if macs else None,
        ),
        seed=calibration.seed,
        notes=notes,
        frozen=[
            FrozenChannels(name=f.name, channels=f.size, reason=f.reason) for f in graph.frozen
        ],
    )


def cut_by_plan(
    model: nn.Module, calibration: Calibration, plan: Plan, importance: str
) -> nn.Module:
    """Rank the channels and cut those the plan has no room for.

    Raises:
        RunError: the plan belongs to other weights.
        ModelError: the plan's groups are not the network's.
    """
    check_plan(model, plan)
    _check_groups(calibration.graph, plan)
    calibration.widths = {name: width.keep for name, width in plan.groups.items()}
    scores = score(importance, calibration)
    keep = keep_best(scores, calibration.widths)
    image = example_input(calibration.model, get_traits(model).channels)
    check(calibration.model, calibration.graph, keep, image)
    return cut(model, calibration.graph, keep).eval()


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

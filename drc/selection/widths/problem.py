"""From settings to a problem, and to its solution.

What the budget counts, its limit, and the widths to choose from: by default multiples of a number,
or of what the device likes, read off the times of the network's layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from drc.evaluation.complexity import macs_per_weight
from drc.evaluation.latency_table import LatencyTable
from drc.evaluation.layer_calls import LayerCall, layer_calls
from drc.graph.cost import Cost, CostModel, LinearSizes
from drc.graph.groups import ChannelGraph
from drc.selection.calibration import Calibration
from drc.selection.widths.base import TOLERANCE, Problem, Solution, solve, width_options
from drc.selection.widths.latency import LatencyCost, Times, latency_cost, meet_latency
from drc.settings import SearchSettings

STEPS = (4, 8, 16, 32)
"""The multiples of channels that a device may like."""

_LAYERS = 3
_SPAN = 64
_WORDS = {"params": "parameters", "macs": "MACs", "latency": "latency"}


def build_problem(calibration: Calibration, settings: SearchSettings, notes: list[str]) -> Problem:
    """The problem that a strategy is to solve.

    Args:
        calibration: network, groups and data.
        settings: of the search.
        notes: gets what a reader of the plan should know of its budget.

    Raises:
        ModelError: the network does not run on an image of the size at which it is measured.
    """
    if settings.round_to == "auto":
        step = _device_step(calibration, settings.lr_size)
        notes.append(f"round_to auto: widths in multiples of {step}, by the time of the layers")
        settings = settings.model_copy(update={"round_to": step})
    round_to, groups = int(settings.round_to), calibration.graph.groups
    cost = _cost(calibration, settings, notes)
    return Problem(
        calibration=calibration,
        cost=cost,
        limit=int(cost(cost.dense) * (1 - settings.ratio)),
        options=[width_options(group, round_to, settings.min_width) for group in groups],
        what=_WORDS[settings.budget],
        settings=settings,
    )


def solve_budget(problem: Problem, notes: list[str]) -> Solution:
    """Widths within the budget; a latency is measured.

    Args:
        problem: made by `build_problem`.
        notes: gets what a reader of the plan should know of how it meets the budget.

    Raises:
        BudgetError: no widths meet the budget.
    """
    if isinstance(problem.cost, LatencyCost):
        solution = meet_latency(problem, problem.cost, notes)
    else:
        solution = solve(problem.settings.strategy, problem)
    predicted = problem.cost(solution.widths)
    if predicted < (1 - TOLERANCE) * problem.limit:
        notes.append(
            f"no plan within {TOLERANCE:.0%} of the budget was found: this one removes "
            f"{1 - predicted / problem.cost(problem.dense):.1%}"
        )
    return solution


def _cost(calibration: Calibration, settings: SearchSettings, notes: list[str]) -> Cost:
    graph, model = calibration.graph, calibration.model
    if settings.budget == "latency":
        return latency_cost(calibration, settings.lr_size)
    if settings.budget == "params":
        return CostModel(graph, model)
    per_tensor = macs_per_weight(model, settings.lr_size)
    cost = CostModel(graph, model, per_tensor)
    elsewhere = per_tensor[""] / cost(cost.dense)
    if elsewhere > TOLERANCE:
        notes.append(
            f"{elsewhere:.0%} of the MACs are spent outside the weights of layers and predicted "
            "as constant: the true count may be lower"
        )
    return cost


def _device_step(calibration: Calibration, lr_size: tuple[int, int]) -> int:
    graph, model = calibration.graph, calibration.model
    calls = layer_calls(model, lr_size, calibration.device)
    table = LatencyTable(calibration.device, next(model.parameters()).dtype)
    return device_step(graph, model, calls, table.microseconds)


def device_step(
    graph: ChannelGraph, model: nn.Module, calls: Sequence[LayerCall], times: Times
) -> int:
    """The one of `STEPS` in which the time of the network's slowest layers rises.

    Up to three layers that a plan can narrow are timed at all multiples of four channels of the
    upper 64. A device that works on blocks of s channels takes `a + b * ceil(width / s)`; the s
    which fits best, by least squares, is the answer. The first of `STEPS` where no layer can tell.

    Args:
        graph: the channel groups.
        model: the network that was traced.
        calls: its layers and their inputs.
        times: the table of their times.
    """
    misfit = dict.fromkeys(STEPS, 0.0)
    for call, dim in _slowest(graph, model, calls, times):
        dense = call.shape.weight[dim]
        widths = range(max(0, dense - _SPAN) + STEPS[0], dense + 1, STEPS[0])
        shapes = [
            call.resized(*(w if d == dim else call.shape.weight[d] for d in (0, 1))) for w in widths
        ]
        table = times(shapes)
        measured = np.asarray([table[shape] for shape in shapes])
        for step in STEPS:
            misfit[step] += _misfit(np.asarray(widths), measured / measured.max(), step)
    return min(STEPS, key=lambda step: misfit[step])


def _slowest(
    graph: ChannelGraph, model: nn.Module, calls: Sequence[LayerCall], times: Times
) -> Iterator[tuple[LayerCall, int]]:
    """Layers of different shapes, with the dimensions of the weight that groups fill."""
    sizes = LinearSizes(graph, model, [call.weight for call in calls])
    table = times([call.shape for call in calls])
    total: dict[object, float] = defaultdict(float)
    first: dict[object, int] = {}
    for row, call in enumerate(calls):
        varies = any(slope[row].any() for slope in sizes.slope[:2])
        if varies and call.shape.groups == 1 and min(call.shape.weight[:2]) >= 2 * STEPS[1]:
            total[call.shape] += table[call.shape] * call.count
            first.setdefault(call.shape, row)
    for shape in sorted(total, key=lambda s: -total[s])[:_LAYERS]:
        row = first[shape]
        for dim in (0, 1):
            if sizes.slope[dim][row].any():
                yield calls[row], dim


def _misfit(widths: np.ndarray, times: np.ndarray, step: int) -> float:
    """Squared distance of the times from the staircase of this step that is nearest."""
    stairs = np.stack([np.ones(len(widths)), np.ceil(widths / step)], 1)
    nearest = stairs @ np.linalg.lstsq(stairs, times, rcond=None)[0]
    return float(((times - nearest) ** 2).sum())

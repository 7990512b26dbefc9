"""From settings to a problem: what the budget counts, its limit, and the widths to choose from."""

from __future__ import annotations

from drc.evaluation.complexity import macs_per_weight
from drc.evaluation.latency_table import LatencyTable
from drc.evaluation.layer_calls import layer_calls
from drc.graph.cost import Cost, CostModel
from drc.selection.criteria.base import Calibration
from drc.selection.widths.base import TOLERANCE, Problem, solve, width_options
from drc.selection.widths.latency_budget import latency_cost, meet_latency
from drc.selection.widths.latency_cost import LatencyCost
from drc.selection.widths.rounding import device_step
from drc.settings.runs import SearchSettings

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


def solve_budget(problem: Problem, notes: list[str]) -> dict[str, int]:
    """Widths by group name, within the budget; a latency is measured.

    Args:
        problem: made by `pose`.
        notes: gets what a reader of the plan should know of how it meets the budget.

    Raises:
        BudgetError: no widths meet the budget.
    """
    if isinstance(problem.cost, LatencyCost):
        widths = meet_latency(problem, problem.cost, notes)
    else:
        widths = solve(problem.settings.strategy, problem)
    predicted = problem.cost(widths)
    if predicted < (1 - TOLERANCE) * problem.limit:
        notes.append(
            f"no plan within {TOLERANCE:.0%} of the budget was found: this one removes "
            f"{1 - predicted / problem.cost(problem.dense):.1%}"
        )
    return widths


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
    tensor = next(model.parameters())
    calls = layer_calls(model, lr_size, tensor.device)
    table = LatencyTable(tensor.device, tensor.dtype)
    return device_step(graph, model, calls, table.microseconds)

"""The default strategy: sensitivities from one pass, then an exact allocation to the budget.

The loss of keeping w atoms of a group is estimated by the sum of the smallest scores of the
`dual_taylor` criterion, so one pass over the calibration data prices every width of every group.
Choosing one width per group within the budget is a multiple-choice knapsack. Where no tensor
has two dimensions that can shrink, costs add up and the integer programme is solved exactly at
once; otherwise it is solved around the current plan, in ever smaller neighbourhoods, with the
exact cost deciding.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from drc.importance.base import score
from drc.strategies.base import Problem, register
from drc.strategies.fill import fill

_SOLVER_SECONDS = 10.0
_ROUNDS = 8


@register("allocate")
def allocate(problem: Problem) -> np.ndarray:
    """Widths of least estimated loss within the budget."""
    losses = width_losses(problem)
    widths = greedy(problem, losses)
    reach = max(len(option) for option in problem.options)
    for _ in range(_ROUNDS):
        proposal = _improve(problem, losses, widths, reach)
        if proposal is not None and _loss(problem, losses, proposal) < _loss(
            problem, losses, widths
        ):
            widths = proposal
        elif reach == 1:
            break
        else:
            reach = max(1, reach // 4)
    return fill(problem, widths, [-loss for loss in losses])


def width_losses(problem: Problem) -> list[np.ndarray]:
    """Per group, the estimated loss at each of its width options, `(options,)`."""
    scores = score("dual_taylor", problem.calibration)
    losses = []
    for group, option in zip(problem.calibration.graph.groups, problem.options, strict=True):
        removed = np.concatenate(([0.0], np.cumsum(np.sort(scores[group.name]))))
        losses.append(removed[group.size - option])
    return losses


def greedy(problem: Problem, losses: list[np.ndarray]) -> np.ndarray:
    """Narrow, step by step, the group that loses least per saved cost until the limit is met."""
    places = np.asarray([len(option) - 1 for option in problem.options])
    widths = problem.dense
    while problem.cost(widths) > problem.limit:
        steps, prices = np.zeros(len(places)), np.full(len(places), np.inf)
        for group, place in enumerate(places):
            if place:
                option, loss = problem.options[group], losses[group]
                steps[group] = option[place] - option[place - 1]
                prices[group] = loss[place - 1] - loss[place]
        saved = problem.cost.savings(widths, steps)
        group = int(np.argmin(prices / np.maximum(saved, 1e-9)))
        places[group] -= 1
        widths[group] = problem.options[group][places[group]]
    return widths


def knapsack(losses: list[np.ndarray], costs: list[np.ndarray], limit: float) -> list[int] | None:
    """Choose one entry per group with the least total loss and a total cost of at most `limit`.

    The multiple-choice knapsack problem, solved exactly by integer programming.

    Returns:
        The index chosen in each group, or None when nothing fits or time runs out.
    """
    counts = [len(loss) for loss in losses]
    starts = np.concatenate(([0], np.cumsum(counts)))
    flat_cost, flat_loss = np.concatenate(costs), np.concatenate(losses)
    group_of = np.repeat(np.arange(len(counts)), counts)
    one_each = csr_matrix((np.ones(starts[-1]), (group_of, np.arange(starts[-1]))))
    scale_cost, scale_loss = np.abs(flat_cost).max() or 1.0, np.abs(flat_loss).max() or 1.0
    result = milp(
        flat_loss / scale_loss,
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(flat_cost[None, :] / scale_cost, -np.inf, limit / scale_cost),
        ],
        integrality=np.ones(starts[-1]),
        bounds=Bounds(0, 1),
        options={"time_limit": _SOLVER_SECONDS, "mip_rel_gap": 1e-9},
    )
    if result.x is None:
        return None
    return [int(np.argmax(result.x[a:b])) for a, b in itertools.pairwise(starts)]


def _improve(
    problem: Problem, losses: list[np.ndarray], widths: np.ndarray, reach: int
) -> np.ndarray | None:
    """The knapsack around `widths`, every group within `reach` options of its current one."""
    options, near_losses, costs = [], [], []
    for group, option in enumerate(problem.options):
        place = int(np.searchsorted(option, widths[group]))
        window = slice(max(0, place - reach), place + reach + 1)
        options.append(option[window])
        near_losses.append(losses[group][window])
        costs.append(_costs_alone(problem, widths, group, option[window]))
    chosen = knapsack(near_losses, costs, problem.limit - problem.cost(widths))
    if chosen is None:
        return None
    proposal = np.asarray(
        [option[index] for option, index in zip(options, chosen, strict=True)], dtype=np.float64
    )
    return proposal if problem.cost(proposal) <= problem.limit else None


def _costs_alone(
    problem: Problem, widths: np.ndarray, group: int, option: np.ndarray
) -> np.ndarray:
    """Cost change when `group` alone takes each width of `option`."""
    base = problem.cost(widths)
    changes = []
    for width in option:
        one = widths.copy()
        one[group] = width
        changes.append(problem.cost(one) - base)
    return np.asarray(changes, dtype=np.float64)


def _loss(problem: Problem, losses: list[np.ndarray], widths: np.ndarray) -> float:
    places = [int(np.searchsorted(o, w)) for o, w in zip(problem.options, widths, strict=True)]
    return float(sum(loss[place] for loss, place in zip(losses, places, strict=True)))

"""The default strategy: sensitivities from one pass, then an exact allocation to the budget.

One width per group, least total loss, cost within the budget. With costs that add up over groups
this is the multiple-choice knapsack problem, which integer programming solves exactly. Costs
multiply where two groups meet in one tensor. A few groups (the streams of a residual network) take
part in all such meetings; with their widths fixed, the costs of the others add up. So the knapsack
is solved for the others: at all widths of those few, where these are not many, and else in a local
search over them.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from drc.selection.criteria.base import loss_of_removing, score
from drc.selection.widths.base import TOLERANCE, Problem, Solution, register

_SOLVER_SECONDS = 10.0
_MOST_KNAPSACKS = 120
_FEW_KNAPSACKS = 32
_REPAIRS = 4
_MOVES = (-1, 1, -2, 2, -4, 4)  # by options; the next one may lie on the same stair

Losses = list[np.ndarray]
"""Per group, in graph order, the loss at each of its width options, `(options,)`."""


@register("allocate", by_scores=True)
def allocate(problem: Problem) -> Solution:
    """Widths of least estimated dual regression loss within the budget."""
    losses = width_losses(problem)
    widths = allocate_widths(problem, losses)
    return Solution(widths, total_loss(problem, losses, widths))


def width_losses(problem: Problem) -> Losses:
    """The loss of every width, as the sum of the smallest scores of its group.

    One pass over the calibration data prices all widths of all groups.
    """
    scores = score(problem.settings.sensitivity, problem.calibration)
    losses = []
    for group, option in zip(problem.calibration.graph.groups, problem.options, strict=True):
        losses.append(loss_of_removing(scores[group.name])[group.size - option])
    return losses


def allocate_widths(problem: Problem, losses: Losses) -> np.ndarray:
    """Widths of least loss whose cost is within the limit, and within 1 % of it if any plan is.

    Args:
        problem: the budget, which must be reachable, and the options.
        losses: what each width of each group loses, any unit.
    """
    hubs = problem.cost.meeting_groups()
    best = _Plans(problem, losses, hubs)
    for start in (greedy(problem, losses), greedy(problem, losses, fixed=hubs)):
        best.consider(start[hubs])
    choices = [problem.options[hub] for hub in hubs]
    if math.prod(map(len, choices)) <= _FEW_KNAPSACKS:
        for hub_widths in itertools.product(*choices):
            best.consider(np.asarray(hub_widths, dtype=np.float64))
        return best.widths if best.widths is not None else greedy(problem, losses)
    while best.widths is not None and best.tried < _MOST_KNAPSACKS:
        before = best.rank
        for place, step in itertools.product(range(len(hubs)), _MOVES):
            best.consider(best.moved(place, step))
        if best.rank == before:
            break
    return best.widths if best.widths is not None else greedy(problem, losses)


def greedy(problem: Problem, losses: Losses, fixed: np.ndarray | None = None) -> np.ndarray:
    """Narrow, step by step, the group that loses least per saved cost until the limit is met.

    A step goes to any narrower width, as the next one may save nothing. `fixed` lists groups that
    stay dense as long as others can shrink.
    """
    options = problem.options
    places = np.asarray([len(option) - 1 for option in options])
    widths = problem.dense
    held = np.zeros(len(places), bool)
    if fixed is not None:
        held[fixed] = True
    while problem.cost(widths) > problem.limit:
        narrower = [o[: 0 if h else p] for o, p, h in zip(options, places, held, strict=True)]
        changes = problem.cost.of_options(widths, narrower)
        prices = [
            (loss[:place] - loss[place])[: len(change)] / np.maximum(-change, 1e-9)
            for loss, place, change in zip(losses, places, changes, strict=True)
        ]
        # The widest of equally cheap ones: where the cost is linear, the next narrower width.
        best = [np.inf if not len(price) else price.min() for price in prices]
        cheapest = int(np.argmin(best))
        if not len(prices[cheapest]):
            held[:] = False
            continue
        places[cheapest] = np.flatnonzero(prices[cheapest] == best[cheapest])[-1]
        widths[cheapest] = options[cheapest][places[cheapest]]
    return widths


def knapsack(
    losses: Losses, costs: list[np.ndarray], limit: float, floor: float = -np.inf
) -> list[int] | None:
    """Choose one entry per group with the least total loss and a total cost of floor to limit.

    Solved exactly by integer programming.

    Returns:
        The index chosen in each group, or None when nothing fits or time runs out.
    """
    counts = [len(loss) for loss in losses]
    if not counts:
        return [] if floor <= 0 <= limit else None
    starts = np.concatenate(([0], np.cumsum(counts)))
    flat_cost, flat_loss = np.concatenate(costs), np.concatenate(losses)
    group_of = np.repeat(np.arange(len(counts)), counts)
    one_each = csr_matrix((np.ones(starts[-1]), (group_of, np.arange(starts[-1]))))
    unit_cost, unit_loss = np.abs(flat_cost).max() or 1.0, np.abs(flat_loss).max() or 1.0
    result = milp(
        flat_loss / unit_loss,
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(flat_cost[None, :] / unit_cost, floor / unit_cost, limit / unit_cost),
        ],
        integrality=np.ones(starts[-1]),
        bounds=Bounds(0, 1),
        options={"time_limit": _SOLVER_SECONDS, "mip_rel_gap": 1e-9},
    )
    if result.x is None:
        return None
    return [int(np.argmax(result.x[a:b])) for a, b in itertools.pairwise(starts)]


class _Plans:
    """The best plan so far, over widths of the hubs; each is completed by a knapsack."""

    def __init__(self, problem: Problem, losses: Losses, hubs: np.ndarray) -> None:
        self.problem, self.losses, self.hubs = problem, losses, hubs
        self.others = np.setdiff1d(np.arange(len(losses)), hubs)
        self.widths: np.ndarray | None = None
        self.rank = (True, np.inf)
        self._seen: set[bytes] = set()

    @property
    def tried(self) -> int:
        return len(self._seen)

    def consider(self, hub_widths: np.ndarray) -> None:
        """Complete the hub widths, and keep the plan if it ranks before the best one."""
        key = hub_widths.tobytes()
        if key in self._seen:
            return
        self._seen.add(key)
        widths = self._complete(hub_widths)
        if widths is None:
            return
        under = self.problem.cost(widths) < (1 - TOLERANCE) * self.problem.limit
        rank = (under, total_loss(self.problem, self.losses, widths))
        if rank < self.rank:
            self.rank, self.widths = rank, widths

    def moved(self, place: int, step: int) -> np.ndarray:
        """The best plan's hub widths, one of them moved by `step` options where it can be."""
        assert self.widths is not None
        hub_widths = self.widths[self.hubs].copy()
        option = self.problem.options[self.hubs[place]]
        index = int(np.searchsorted(option, hub_widths[place])) + step
        hub_widths[place] = option[min(max(index, 0), len(option) - 1)]
        return hub_widths

    def _complete(self, hub_widths: np.ndarray) -> np.ndarray | None:
        problem = self.problem
        start = problem.narrowest
        start[self.hubs] = hub_widths
        room = problem.limit - problem.cost(start)
        changes = problem.cost.of_options(start, problem.options)
        losses = [self.losses[group] for group in self.others]
        costs = [changes[group] for group in self.others]
        for _ in range(_REPAIRS):
            chosen = None
            for floor in (room - TOLERANCE * problem.limit, -np.inf):
                chosen = chosen or knapsack(losses, costs, room, floor)
            if chosen is None:
                return None
            widths = start.copy()
            for group, index in zip(self.others, chosen, strict=True):
                widths[group] = problem.options[group][index]
            excess = problem.cost(widths) - problem.limit
            if excess <= 0:
                return widths
            room -= excess  # steps of a staircase over several groups do not quite add up
        return None


def total_loss(problem: Problem, losses: Losses, widths: np.ndarray) -> float:
    places = [int(np.searchsorted(o, w)) for o, w in zip(problem.options, widths, strict=True)]
    return float(sum(loss[place] for loss, place in zip(losses, places, strict=True)))

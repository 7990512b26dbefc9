"""Searches meet their budget exactly, and the allocation is the best there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers.networks import Residual, conv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from drc.core.errors import BudgetError, UsageError
from drc.graph.cost import CostModel
from drc.graph.groups import Group, Slice
from drc.graph.trace import trace
from drc.networks.registry import build
from drc.selection.calibration import Calibration
from drc.selection.widths.allocate import knapsack, width_losses
from drc.selection.widths.base import TOLERANCE, Problem, list_strategies, width_options
from drc.selection.widths.base import solve as search

ALLOCATORS = [n for n in list_strategies() if n not in ("dual_darts", "plain")]
"""Those that need neither images beside the scores nor spandrel."""


def problem_for(model: nn.Module, ratio: float, seed: int, round_to: int = 1) -> Problem:
    """A problem whose scores are drawn, not measured, so that only the allocation is tested."""
    graph = trace(model)
    rng = np.random.default_rng(seed)
    scores = {
        g.name: rng.exponential(rng.uniform(0.1, 3), (g.blocks, g.size)) for g in graph.groups
    }
    calibration = Calibration(model, graph, [], scores={("dual_obs",): scores})
    cost = CostModel(graph, model)
    limit = int(cost(cost.dense) * (1 - ratio))
    options = [width_options(g, round_to, round_to) for g in graph.groups]
    return Problem(calibration, cost, limit, options)


def solve(strategy: str, problem: Problem) -> dict[str, int]:
    return problem.named(search(strategy, problem).widths)


def best_loss(problem: Problem) -> float:
    """The least loss of all plans, by trying every one; those within 1 % of the limit first."""
    losses = width_losses(problem)
    best = (True, np.inf)
    for places in itertools.product(*(range(len(option)) for option in problem.options)):
        widths = np.asarray([o[p] for o, p in zip(problem.options, places, strict=True)])
        cost = problem.cost(widths)
        if cost <= problem.limit:
            loss = sum(loss[p] for loss, p in zip(losses, places, strict=True))
            best = min(best, (cost < (1 - TOLERANCE) * problem.limit, loss))
    return best[1]


def loss_of(problem: Problem, widths: dict[str, int]) -> float:
    found = 0.0
    for loss, option, width in zip(
        width_losses(problem), problem.options, widths.values(), strict=True
    ):
        found += loss[list(option).index(width)]
    return found


class Separate(nn.Module):
    """Inner widths between fixed streams: costs add up."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(3, width), nn.ReLU(), conv(width, 3)) for width in (5, 7, 6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.mark.parametrize("seed", range(6))
def test_allocation_is_optimal_where_costs_add_up(seed: int) -> None:
    problem = problem_for(Separate().eval(), 0.2 + 0.1 * seed, seed)
    assert loss_of(problem, solve("allocate", problem)) == pytest.approx(best_loss(problem))


@pytest.mark.parametrize("seed", range(6))
def test_allocation_is_near_the_optimum_where_widths_multiply(seed: int) -> None:
    problem = problem_for(Residual().eval(), 0.2 + 0.1 * seed, seed, round_to=2)
    assert loss_of(problem, solve("allocate", problem)) <= 1.05 * best_loss(problem)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_knapsack_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, rng.integers(1, 5))
    losses = [rng.integers(0, 50, n).astype(float) for n in sizes]
    costs = [rng.integers(-20, 50, n).astype(float) for n in sizes]
    limit = float(rng.integers(-20, 120))
    plans = list(itertools.product(*(range(n) for n in sizes)))
    fitting = [p for p in plans if sum(c[i] for c, i in zip(costs, p, strict=True)) <= limit]
    chosen = knapsack(losses, costs, limit)
    if not fitting:
        assert chosen is None
        return
    assert chosen is not None
    best = min(sum(x[i] for x, i in zip(losses, p, strict=True)) for p in fitting)
    assert sum(c[i] for c, i in zip(costs, chosen, strict=True)) <= limit
    assert sum(x[i] for x, i in zip(losses, chosen, strict=True)) == pytest.approx(best)


@pytest.mark.parametrize("strategy", ALLOCATORS)
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.7])
def test_budgets_are_met_within_one_percent(strategy: str, ratio: float) -> None:
    problem = problem_for(build("drn_tiny"), ratio, seed=1, round_to=4)
    widths = solve(strategy, problem)
    assert (1 - TOLERANCE) * problem.limit <= problem.cost(widths) <= problem.limit
    for (name, width), option in zip(widths.items(), problem.options, strict=True):
        assert width in option, name


@pytest.mark.parametrize("strategy", ALLOCATORS)
def test_same_problem_same_plan(strategy: str) -> None:
    plans = [solve(strategy, problem_for(Residual().eval(), 0.4, 3)) for _ in range(2)]
    assert plans[0] == plans[1]


def test_uniform_keeps_the_same_share_everywhere() -> None:
    problem = problem_for(build("drn_tiny"), 0.5, seed=0, round_to=4)
    widths = solve("uniform", problem)
    shares = [
        widths[n] / s for n, s in zip(problem.cost.names, problem.dense, strict=True) if s >= 32
    ]
    assert max(shares) - min(shares) <= 8 / 32


@pytest.mark.parametrize(("ratio", "streams_stay"), [(0.5, True), (0.9, False)])
def test_uniform_inner_spares_the_streams_while_it_can(ratio: float, streams_stay: bool) -> None:
    problem = problem_for(build("drn_tiny"), ratio, seed=0, round_to=4)
    widths = np.asarray(list(solve("uniform_inner", problem).values()))
    streams = problem.cost.meeting_groups()
    assert len(streams) > 0
    assert (widths[streams] == problem.dense[streams]).all() == streams_stay
    inner = np.setdiff1d(np.flatnonzero(problem.dense >= 32), streams)
    shares = widths[inner] / problem.dense[inner]
    assert shares.max() - shares.min() <= 8 / 32
    assert problem.cost(widths) <= problem.limit


def test_an_unreachable_budget_says_what_can_be_reached() -> None:
    problem = problem_for(build("drn_tiny"), 0.99, seed=0, round_to=4)
    with pytest.raises(BudgetError, match=r"no plan removes 99\.0% .* 0% to \d+\.\d% can be"):
        solve("allocate", problem)


def test_an_unknown_strategy_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean allocate"):
        solve("alocate", problem_for(Residual().eval(), 0.3, 0))


@pytest.mark.parametrize(
    ("size", "round_to", "min_width", "expected"),
    [(16, 4, 4, [4, 8, 12, 16]), (10, 4, 8, [8, 10]), (3, 4, 4, [3]), (5, 1, 3, [3, 4, 5])],
)
def test_width_options(size: int, round_to: int, min_width: int, expected: list[int]) -> None:
    group = channels_of(size, each=1)
    assert width_options(group, round_to, min_width).tolist() == expected


def test_an_atom_of_six_heads_rounds_to_their_channels_together() -> None:
    """6 heads lose 2 channels each, 12 in all, to keep multiples of 4."""
    assert width_options(channels_of(10, each=6), 4, 4).tolist() == [2, 4, 6, 8, 10]


def channels_of(size: int, each: int) -> Group:
    """A group whose atoms are `each` channels of one layer."""
    indices = np.arange(size * each).reshape(each, size).T
    return Group("g", size, (Slice("w", 0, indices, False, np.arange(each)),), blocks=each)

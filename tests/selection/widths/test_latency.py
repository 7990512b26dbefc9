"""Latency budgets: staircases are solved exactly, and plans are measured before they are given."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks import Plain, Residual, conv
from torch import Tensor, nn

import drc
from drc.core.errors import BudgetError, UsageError
from drc.evaluation.latency_table import LayerShape
from drc.evaluation.layer_calls import layer_calls
from drc.graph.trace import trace
from drc.selection.calibration import Calibration
from drc.selection.widths.allocate import Losses, allocate_widths, total_loss
from drc.selection.widths.base import TOLERANCE, Problem, width_options
from drc.selection.widths.latency import LatencyCost
from drc.selection.widths.problem import STEPS, device_step
from drc.settings import SearchSettings
from drc.store.plan import Plan

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRC_CACHE", str(tmp_path / "cache"))


class Staircase:
    """Times, by hand, of a device that works on blocks of channels: 2 us per pair of blocks."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, shapes: Iterable[LayerShape]) -> dict[LayerShape, float]:
        return {s: 2.0 * np.prod([-(-n // self.step) for n in s.weight[:2]]) for s in shapes}


class Separate(nn.Module):
    """Inner widths between fixed streams: costs add up."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(3, width), nn.ReLU(), conv(width, 3)) for width in (8, 12, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class Beside(nn.Module):
    """A layer that reads two groups side by side, which share the steps of its staircase."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.tail = conv(3, 9), conv(3, 7), conv(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(torch.cat((self.a(x), self.b(x)), 1).relu())


def cost_of(model: nn.Module, step: int, dense_us: float | None = None) -> LatencyCost:
    calls, times = layer_calls(model, (6, 6), CPU), Staircase(step)
    table = sum(times([call.shape])[call.shape] * call.count for call in calls)
    return LatencyCost(trace(model), model, calls, times, dense_us or table)


def problem_of(model: nn.Module, step: int, ratio: float, seed: int) -> tuple[Problem, Losses]:
    graph, cost = trace(model), cost_of(model, step)
    options = [width_options(group, 1, 1) for group in graph.groups]
    rng = np.random.default_rng(seed)
    losses = [np.cumsum(rng.exponential(size=len(option)))[::-1] for option in options]
    limit = int(cost(cost.dense) * (1 - ratio))
    return Problem(Calibration(model, graph, []), cost, limit, options, "latency"), losses


def best_loss(problem: Problem, losses: Losses) -> float:
    """Over all plans within the limit, those within 1 % of it first."""
    best = (True, np.inf)
    for places in itertools.product(*(range(len(option)) for option in problem.options)):
        widths = np.asarray([o[p] for o, p in zip(problem.options, places, strict=True)], float)
        cost = problem.cost(widths)
        if cost <= problem.limit:
            loss = sum(loss[p] for loss, p in zip(losses, places, strict=True))
            best = min(best, (cost < (1 - TOLERANCE) * problem.limit, loss))
    return best[1]


@pytest.mark.parametrize("network", [Separate, Beside])
@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.5])
def test_allocation_on_a_staircase_is_optimal(network: type[nn.Module], ratio: float) -> None:
    for seed in range(3):
        problem, losses = problem_of(network().eval(), 4, ratio, seed)
        widths = allocate_widths(problem, losses)
        assert problem.cost(widths) <= problem.limit
        found, best = total_loss(problem, losses, widths), best_loss(problem, losses)
        assert found == pytest.approx(best)


def test_allocation_stands_on_top_of_the_stairs() -> None:
    problem, losses = problem_of(Separate().eval(), 4, 0.4, 0)
    widths = allocate_widths(problem, losses)
    tops = [w % 4 == 0 or w == size for w, size in zip(widths, problem.dense, strict=True)]
    assert all(tops)


@pytest.mark.parametrize("network", [Separate, Beside, Residual, Plain])
def test_changes_are_differences_of_costs(network: type[nn.Module]) -> None:
    model = network().eval()
    cost = cost_of(model, 2, dense_us=5000.0)
    widths = np.maximum(cost.dense - 2, 1)
    options = [np.arange(1, size + 1) for size in cost.dense]
    for group, changes in enumerate(cost.of_options(widths, options)):
        for option, change in zip(options[group], changes, strict=True):
            one = widths.copy()
            one[group] = option
            assert cost(one) - cost(widths) == pytest.approx(change, abs=1.01)


def test_cost_by_hand() -> None:
    # head 3 -> 8 and tail 8 -> 12 in blocks of 4: 2 * (2 * 1) + 2 * (3 * 2) = 16 us of 116; the
    # other 100 are shared out over 8 + 12 channels put out.
    cost = cost_of(Plain().eval(), 4, dense_us=116.0)
    assert cost({}) == 116
    assert cost({"head": 4}) == 2 + 6 + 100 * (4 + 12) / 20
    assert cost({"head": 5}) == 16 + 100 * (5 + 12) / 20


def test_layers_never_take_more_than_the_network() -> None:
    # 16 us by the table in a network that takes 8: every layer counts half, nothing is left over.
    cost = cost_of(Plain().eval(), 4, dense_us=8.0)
    assert cost({}) == 8
    assert cost({"head": 4}) == (2 + 6) / 2


def test_what_was_measured_corrects_the_cost() -> None:
    cost = cost_of(Plain().eval(), 4, dense_us=1160.0)
    widths = {"head": 4}
    assert cost(widths) == pytest.approx(8 + 1144 * 16 / 20, abs=1)
    cost.correct(widths, 1100.0)
    assert cost(widths) == 1100
    assert cost({}) == 1160
    cost.correct(widths, 1200.0)  # slower than dense: noise, as fewer channels cannot be
    assert cost(widths) < 1160


@pytest.mark.parametrize("step", STEPS)
def test_the_step_of_a_device_is_found(step: int) -> None:
    model = nn.Sequential(conv(3, 64), nn.ReLU(), conv(64, 64), nn.ReLU(), conv(64, 3)).eval()
    calls = layer_calls(model, (6, 6), CPU)
    assert device_step(trace(model), model, calls, Staircase(step)) == step


def test_the_step_is_the_finest_where_no_layer_can_tell() -> None:
    model = Plain().eval()
    assert device_step(trace(model), model, layer_calls(model, (6, 6), CPU), Staircase(8)) == 4


def _search(ratio: float = 0.3, **settings: Any) -> Plan:
    batches = [(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32))]
    return drc.search(
        drc.create_model("drn_tiny"), batches, ratio, device="cpu",
        settings=drc.SearchSettings(strategy="uniform", lr_size=(12, 12), **settings),
    )  # fmt: skip


def test_search_for_a_latency() -> None:
    plan = _search(budget="latency", ratio=0.3)
    budget = plan.budget
    assert (budget.kind, budget.lr_size, budget.unit) == ("latency", (12, 12), "ms")
    assert 0 < budget.predicted <= budget.limit == int(0.7 * budget.before)
    assert budget.shown(budget.before) == budget.before / 1000
    assert any(width.keep < width.of for width in plan.groups.values())
    assert [note.startswith("measured at an LR image of 12x12 on ") for note in plan.notes].count(
        True
    ) == 1
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan


def test_a_latency_out_of_reach() -> None:
    with pytest.raises(BudgetError, match=r"no plan removes 99\.\d% of the latency: .* 0% to "):
        _search(budget="latency", ratio=0.99)


def test_search_with_automatic_rounding() -> None:
    plan = _search(ratio=0.4, round_to="auto")
    (note,) = (note for note in plan.notes if note.startswith("round_to auto"))
    step = int(note.split("multiples of ")[1].split(",")[0])
    assert step in STEPS
    inner = plan.groups["up_blocks.1.0.body.0"]
    assert inner.keep % step == 0
    assert plan.budget.predicted <= plan.budget.limit


def test_rounding_in_settings() -> None:
    assert SearchSettings(round_to="auto").round_to == "auto"
    assert SearchSettings.model_validate({"round_to": "8"}).round_to == 8
    for wrong in ("some", 0, "0", -4, 2.5, True):
        with pytest.raises(UsageError, match=r"round_to is .*should be a whole number"):
            _search(round_to=wrong)

"""The paper's search: candidates, masks and gradients by hand, and what it finds."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.blocked import Heads
from helpers.networks import Residual, conv
from torch import Tensor, nn
from torch.func import functional_call

import drc
from drc.core.errors import DataError, TrainingError, UsageError
from drc.graph.cost import CostModel
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.selection.calibration import Calibration, calibrate
from drc.selection.criteria.base import keep_best, score
from drc.selection.planning import cut_by_plan, search_plans
from drc.selection.widths.base import TOLERANCE, Problem, solve, width_options
from drc.selection.widths.dual_darts import WidthSearch, candidate_widths, unrolled_gradient
from drc.selection.widths.width_masks import WidthMasks
from drc.settings import PruneSettings, SearchSettings
from drc.settings.reader import load_settings
from drc.training.losses import dual_regression_loss

pytestmark = pytest.mark.usefixtures("one_thread")


class Inner(nn.Module):
    """Two blocks of 1x1 convolutions beside one stream; only their inner widths can change."""

    scale = 1

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(3, width, 1), conv(width, 3, 1)) for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def problem_for(model: nn.Module, batches: list, round_to: int = 1, **settings: object) -> Problem:
    options = SearchSettings(**settings)
    graph = trace(model.float())
    cost = CostModel(graph, model)
    return Problem(
        Calibration(model, graph, batches, patches=sum(len(lr) for lr, _ in batches)),
        cost,
        int(cost(cost.dense) * (1 - options.ratio)),
        [width_options(group, round_to, round_to) for group in graph.groups],
        settings=options,
    )


def images(count: int, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    return [(torch.rand(1, 3, size, size), torch.rand(1, 3, size, size)) for _ in range(count)]


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        # 48 channels times .5 to 1: 24, 28.8, 33.6, 38.4, 43.2, 48; 38 is as far from 36 as 40.
        (0.25, [24, 28, 32, 36, 44, 48]),
        # 3.2 to 6.4 channels are all nearest to 4, but for the last two.
        (0.9, [4, 8]),
    ],
)
def test_candidates_by_hand(ratio: float, expected: list[int]) -> None:
    problem = problem_for(Inner(64).eval(), [], round_to=4, ratio=ratio)
    problem = replace(problem, limit=problem.cost({"blocks.0.0": expected[-1]}))
    assert [widths.tolist() for widths in candidate_widths(problem)] == [expected]


def test_candidates_aim_higher_where_rounding_undershoots() -> None:
    """0.7 * 64 rounds down to 44, under the budget; 47.36, of a share of 0.74, is the first to
    round to 48. Half of it is 23.68, and so on: 28.4, 33.2, 37.9, 42.6."""
    problem = problem_for(Inner(64).eval(), [], round_to=4, ratio=0.3)
    assert candidate_widths(problem)[0].tolist() == [24, 28, 32, 36, 40, 48]


def test_streams_stay_dense_unless_the_budget_needs_them() -> None:
    """The stream of 8 meets both blocks of 12, which alone can lose 81 % of the weights."""
    for ratio, narrows in ((0.3, False), (0.85, True)):
        problem = problem_for(Residual().eval(), [], ratio=ratio)
        candidates = candidate_widths(problem)
        sizes = [len(widths) for widths in candidates]
        stream = [group.size for group in problem.calibration.graph.groups].index(8)
        assert (sizes[stream] > 1) is narrows
        assert all(n > 1 for place, n in enumerate(sizes) if place != stream)
        narrowest, widest = (problem.cost(np.asarray([w[i] for w in candidates])) for i in (0, -1))
        assert narrowest <= problem.limit <= widest


def test_masks_by_hand() -> None:
    """L1 norms 1, 4, 2, 3 order the channels 1, 3, 2, 0. Widths 1 and 3 at probabilities 1/4 and
    3/4 leave channel 1 whole, channels 3 and 2 at 3/4 and channel 0 at nothing."""
    model = Inner(4).eval()
    first, second = model.blocks[0]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([1.0, -4.0, 2.0, -3.0]).view(4, 1, 1, 1).expand(4, 3, 1, 1))
    masks = WidthMasks(problem_for(model, []).calibration, [np.asarray([1, 3])])
    logits = [torch.tensor([0.0, math.log(3)], requires_grad=True)]
    expected = torch.tensor([0.0, 1.0, 0.75, 0.75])
    assert torch.allclose(masks.gates(logits)[0], expected)
    masked = masks.masked(dict(model.named_parameters()), logits)
    assert list(masked) == ["blocks.0.1.weight"]
    assert torch.allclose(masked["blocks.0.1.weight"], second.weight * expected.view(1, 4, 1, 1))
    masked["blocks.0.1.weight"].sum().backward()
    # d gate / d logit = p0 * p1 * (mask - other mask) = 3/16 on channels 2 and 3.
    slope = 3 / 16 * second.weight[:, 2:].sum().item()
    assert logits[0].grad.tolist() == pytest.approx([-slope, slope], abs=1e-6)


@pytest.mark.parametrize("network", [Residual, Heads])
def test_a_certain_mask_is_the_cut_network(network: type[nn.Module]) -> None:
    """With all probability on one width, each block by its own L1 order."""
    model = network().eval()
    calibration = problem_for(model, []).calibration
    inner = [g.name for g in calibration.graph.groups if "head" not in g.name]
    widths = {g.name: g.size // 2 if g.name in inner else g.size for g in calibration.graph.groups}
    assert any(width < calibration.graph[name].size for name, width in widths.items())
    options = [np.asarray([widths[g.name], g.size]) for g in calibration.graph.groups]
    masks = WidthMasks(calibration, options)
    logits = [torch.tensor([1000.0, 0.0])] * len(options)
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    small = cut(model, calibration.graph, keep_best(score("l1", calibration), widths))
    x = torch.rand(1, 3, 8, 8)
    assert torch.allclose(
        functional_call(model, masks.masked(own, logits), (x,)), small(x), atol=1e-5
    )


def test_second_order_equals_the_exact_gradient() -> None:
    """On smooth losses, against autograd through the step of the weights."""
    torch.manual_seed(1)
    w = torch.randn(6, dtype=torch.float64, requires_grad=True)
    a = torch.randn(3, dtype=torch.float64, requires_grad=True)
    drift, rate = torch.randn(6, dtype=torch.float64), 0.05
    tables = torch.randn(2, 4, 6, dtype=torch.float64)

    def loss(table: Tensor):
        return lambda ws, logits: (
            (table @ (ws[0] * torch.softmax(logits[0], 0).repeat(2)) - 1).tanh().square().sum()
        )

    train, val = loss(tables[0]), loss(tables[1])
    (slope,) = torch.autograd.grad(train([w], [a]), w, create_graph=True)
    ahead = w - rate * (slope + drift)
    (exact,) = torch.autograd.grad(val([ahead], [a]), a)
    (direct,) = torch.autograd.grad(val([ahead.detach()], [a]), a)
    (found,) = unrolled_gradient(train, val, [w], [a], rate, [drift])
    second = exact - direct
    assert second.norm() > 0.05 * exact.norm()
    assert torch.allclose(found, exact, atol=1e-4 * exact.norm().item())


def test_the_gradients_of_both_orders_on_a_network() -> None:
    """All errors are far from 0, where the L1 loss has its kink, so it is smooth along the step."""
    model = Inner(4, 5).eval()
    data = [(lr, hr + 9) for lr, hr in images(4)]
    problem = problem_for(model, data, ratio=0.5, darts_order=2, darts_lr=0.05)
    model.double()
    candidates = [np.asarray([1, 2, 3]), np.asarray([1, 3])]
    train, val = ((lr.double(), hr.double()) for lr, hr in data[:2])
    search = WidthSearch(problem, candidates)
    found = search.arch_gradient(train, val)

    def loss(weights, batch):
        masked = search.masks.masked(weights, search.masks.logits)
        return dual_regression_loss(
            functional_call(search.model, {**weights, **masked}, (batch[0],)), *batch, None, 1.0
        )

    weights = dict(search.model.named_parameters())
    slopes = torch.autograd.grad(loss(weights, train), list(weights.values()), create_graph=True)
    ahead = {
        n: w - 0.05 * (s + 3e-4 * w.detach())
        for (n, w), s in zip(weights.items(), slopes, strict=True)
    }
    exact = torch.autograd.grad(loss(ahead, val), search.masks.logits)
    for gradient, truth in zip(found, exact, strict=True):
        assert torch.allclose(gradient, truth, atol=1e-5 * truth.norm().item())
    problem = replace(problem, settings=problem.settings.model_copy(update={"darts_order": 1}))
    first = WidthSearch(problem, candidates).arch_gradient(train, val)
    now = torch.autograd.grad(loss(weights, val), search.masks.logits)
    for gradient, truth, other in zip(first, now, exact, strict=True):
        assert torch.allclose(gradient, truth) and not torch.allclose(gradient, other, rtol=1e-3)


@pytest.mark.parametrize("order", [1, 2])
def test_the_block_that_does_something_keeps_its_channels(order: int) -> None:
    """The second block has no weights, so that its width is free; the first is all there is."""
    model = Inner(16, 16).eval()
    with torch.no_grad():
        model.blocks[0][1].weight.mul_(4)
        for parameter in model.blocks[1].parameters():
            parameter.zero_()
    data = [(lr, model(lr).detach()) for lr, _ in images(6)]
    problem = problem_for(
        model, data, ratio=0.3, darts_steps=15, darts_arch_lr=0.1, darts_order=order, darts_batch=3
    )
    before = copy.deepcopy(model.state_dict())
    # 7 weights per channel and 6 biases: 22 channels fill the limit of 161 to 160. The widest two
    # candidates are 10 and 12, so one block has the one and one the other.
    widths = problem.named(solve("dual_darts", problem).widths)
    assert widths == {"blocks.0.0": 12, "blocks.1.0": 10}
    assert problem.calibration.passes.count == 15 * 3 * (2 if order == 1 else 5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_same_seed_same_logits() -> None:
    model, data = Residual().eval(), images(4, 8)
    runs = []
    for seed in (3, 3, 4):
        problem = problem_for(model, data, ratio=0.4, darts_steps=2, darts_batch=1)
        problem = replace(problem, calibration=replace(problem.calibration, seed=seed))
        logits = WidthSearch(problem, candidate_widths(problem)).run()
        runs.append(torch.cat(logits).tolist())
    assert runs[0] == runs[1] != runs[2]


def test_a_network_of_frozen_weights_is_searched() -> None:
    model = Residual().eval().requires_grad_(False)
    problem = problem_for(model, images(2, 8), ratio=0.4, darts_steps=1)
    assert problem.cost(solve("dual_darts", problem).widths) <= problem.limit
    assert not any(p.requires_grad for p in model.parameters())


def test_errors_say_what_to_do() -> None:
    model, nan = Residual().eval(), torch.full((1, 3, 8, 8), torch.nan)
    for batches, kind, words in (
        ([(nan, nan)] * 2, TrainingError, "at step 1; lower search.darts_lr"),
        (images(1, 8), UsageError, "set patches to 2 or more"),
        ([*images(2, 8), *images(2, 10)], DataError, "8x8 and 10x10"),
    ):
        with pytest.raises(kind, match=words):
            solve("dual_darts", problem_for(model, batches, ratio=0.4, darts_steps=2))


def test_drn_tiny_from_a_settings_file_to_a_smaller_network(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "model: drn_tiny\n"
        "search: {strategy: dual_darts, round_to: 4, darts_steps: 2, darts_batch: 1, patches: 2,"
        " ratio: 0.3}\n"
    )
    settings = load_settings(file, {}).search
    model, dual = drc.create_model("drn_tiny", weights="default", dual=True)
    loader = [(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32))]
    calls: list[tuple] = []
    calibration = calibrate(
        model, loader, dual, settings, "cpu", 0, lambda *call: calls.append(call)
    )
    (plan,) = search_plans(model, calibration, settings, []).plans
    assert (1 - TOLERANCE) * plan.budget.limit <= plan.budget.predicted <= plan.budget.limit
    assert [call[:3] for call in calls] == [("search", 1, 2), ("search", 2, 2)]
    assert calibration.passes.count == 2 * 5
    pruned = cut_by_plan(model, calibration, plan, PruneSettings(importance="l1"))
    assert drc.complexity(pruned, (16, 16)).params == plan.budget.predicted
    streams = [
        name for name, width in plan.groups.items() if name in ("head", "down.1.dual_module.1")
    ]
    assert streams and all(plan.groups[name].keep == plan.groups[name].of for name in streams)

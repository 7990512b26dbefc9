"""A cut network is an ordinary one, and the record of a cut rebuilds it."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.networks import (
    REMOVABLE,
    Depthwise,
    Grouped,
    Normed,
    Plain,
    Residual,
    Tokens,
    Transposed,
)
from torch import nn

from drc.core.errors import ModelError
from drc.graph.cost import CostModel
from drc.graph.surgery import Cut, apply_cut, cut, get_cut
from drc.graph.trace import trace
from drc.networks.registry import build

IMAGE = torch.rand(1, 3, 9, 11)


def first(graph, count: int) -> dict[str, list[int]]:
    return {g.name: list(range(min(count, g.size))) for g in graph.groups}


def test_attributes_follow_the_weights() -> None:
    def small(network: type[nn.Module], count: int) -> nn.Module:
        model = network().eval()
        graph = trace(model)
        return cut(model, graph, first(graph, count))

    plain = small(Plain, 5)
    assert (plain.head.out_channels, plain.tail.in_channels) == (5, 5)
    deep = small(Depthwise, 3)
    assert (deep.depth.groups, deep.depth.in_channels, deep.depth.out_channels) == (3, 3, 3)
    assert (deep.twice.groups, deep.twice.in_channels, deep.twice.out_channels) == (3, 3, 6)
    assert (deep.up.groups, deep.up.in_channels, deep.up.out_channels) == (6, 6, 6)
    grouped = small(Grouped, 2)
    assert (grouped.middle.groups, grouped.middle.in_channels) == (2, 4)
    assert grouped.middle.out_channels == 4
    normed = small(Normed, 5)
    assert (normed.norm.num_features, normed.act.num_parameters) == (5, 5)
    assert normed.norm.running_var.shape == normed.scale.flatten().shape == (5,)
    up = small(Transposed, 4).up
    assert (up.in_channels, up.out_channels) == (4, 4)
    tokens = small(Tokens, 6)
    assert (tokens.up.in_features, tokens.up.out_features) == (6, 6)


def test_a_cut_rebuilds_the_network_from_a_fresh_instance() -> None:
    model = Residual().eval()
    graph = trace(model)
    small = cut(model, graph, first(graph, 5))
    step = get_cut(small)
    assert step is not None
    fresh = Residual()
    apply_cut(fresh, Cut.from_json(json.loads(json.dumps(step.to_json()))))
    fresh.load_state_dict(small.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(IMAGE), small(IMAGE))


def test_cuts_in_a_row_are_recorded_against_the_dense_network() -> None:
    model = Plain().eval()
    graph = trace(model)
    once = cut(model, graph, {"head": [1, 3, 4, 6, 7]})
    twice = cut(once, trace(once), {"head": [0, 2, 3]})
    step = get_cut(twice)
    assert step is not None and step.kept["head.weight"] == {0: [1, 4, 6]}
    again = cut(model, graph, {"head": [1, 4, 6]})
    assert torch.equal(again(IMAGE), twice(IMAGE))


def test_shared_parameters_stay_shared() -> None:
    model = Residual().eval()
    model.blocks[1][0].weight = model.blocks[0][0].weight
    graph = trace(model)
    small = cut(model, graph, first(graph, 6))
    assert small.blocks[0][0].weight is small.blocks[1][0].weight
    assert small(IMAGE).shape == model(IMAGE).shape


@pytest.mark.parametrize("keep", [{"nowhere": [0]}, {"head": []}, {"head": [8]}, {"head": [-1]}])
def test_impossible_keep_sets_are_refused(keep: dict[str, list[int]]) -> None:
    model = Plain().eval()
    with pytest.raises(ModelError):
        cut(model, trace(model), keep)


def test_a_cut_of_another_network_is_refused() -> None:
    with pytest.raises(ModelError, match=r"body\.0\.weight, which this Plain lacks"):
        apply_cut(Plain(), Cut({"body.0.weight": {0: [0]}}))
    with pytest.raises(ModelError, match=r"keeps index 9 of dimension 0 of head\.weight"):
        apply_cut(Plain(), Cut({"head.weight": {0: [9]}}))


@pytest.mark.parametrize("network", REMOVABLE, ids=lambda network: network.__name__)
def test_predicted_parameters_equal_the_cut_networks(network: type[nn.Module]) -> None:
    model = network().eval()
    graph = trace(model)
    keep = {g.name: list(range(0, g.size, 2)) for g in graph.groups}
    small = cut(model, graph, keep)
    predicted = CostModel(graph, model)({name: len(atoms) for name, atoms in keep.items()})
    assert predicted == sum(p.numel() for p in small.parameters())


def test_savings_equal_the_difference_of_costs() -> None:
    model = build("drn_tiny")
    graph = trace(model)
    cost = CostModel(graph, model)
    widths = cost.dense - 1
    steps = torch.arange(len(widths)).numpy() % 2 + 1.0
    steps[cost.dense <= 2] = 0
    saved = cost.savings(widths, steps)
    for group, step in enumerate(steps):
        one = widths.copy()
        one[group] -= step
        assert saved[group] == pytest.approx(cost(widths) - cost(one))

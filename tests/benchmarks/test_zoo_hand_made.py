"""The hand-made networks of the benchmarks: what is cut from each computes what masking does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo.hand_made import NETWORKS
from drc.graph.groups import ChannelGraph
from drc.graph.inputs import Inputs, call, example_input, map_inputs
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.graph.verify import compare

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # the old weight_norm
every_network = pytest.mark.parametrize("name", NETWORKS)


def prepared(name: str) -> tuple[nn.Module, Inputs]:
    entry = NETWORKS[name]
    model = entry.build()
    return model, entry.inputs() if entry.inputs else example_input(model)


def uneven_half(graph: ChannelGraph) -> dict[str, list]:
    """About half of every group; the blocks of one keep different channels."""
    keep: dict[str, list] = {}
    for group in graph.groups:
        width = max(1, group.size // 2)
        blocks = [
            sorted((2 * i + b) % group.size for i in range(width)) for b in range(group.blocks)
        ]
        keep[group.name] = blocks if group.blocks > 1 else blocks[0]
    return keep


@every_network
def test_what_is_cut_equals_what_is_masked(name: str) -> None:
    model, inputs = prepared(name)
    graph = trace(model, inputs)
    assert graph.groups, graph.frozen
    error = compare(model.double(), graph, uneven_half(graph), map_inputs(Tensor.double, inputs))
    assert error < 1e-6


@every_network
def test_the_cut_network_trains_as_the_dense_one(name: str) -> None:
    model, inputs = prepared(name)
    graph = trace(model, inputs)
    small = cut(model, graph, uneven_half(graph))
    learnt = []
    for network in (model, small):
        output = call(network.train(), inputs)
        output.square().mean().backward()
        learnt.append({n for n, p in network.named_parameters() if p.grad is not None})
    assert learnt[0] == learnt[1]
    with torch.no_grad():
        assert call(small.eval(), inputs).shape == call(model.eval(), inputs).shape

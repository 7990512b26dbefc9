"""The tracer finds what can be cut, and cutting it equals masking it."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.networks import (
    FROZEN_WHOLE,
    REMOVABLE,
    GroupNormed,
    HardCoded,
    Plain,
    Residual,
    UnevenHalves,
    Unknown,
    conv,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from drc.errors import ModelError
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.graph.verify import check, compare
from drc.models.registry import build

IMAGE = torch.rand(2, 3, 12, 10)


def half(graph) -> dict[str, list[int]]:
    """Keep an uneven half of every group."""
    return {g.name: list(range(g.size))[1 :: 2 if g.size > 2 else 1] for g in graph.groups}


@pytest.mark.parametrize("network", REMOVABLE, ids=lambda network: network.__name__)
def test_finds_the_groups_and_cuts_them_exactly(network: type[nn.Module]) -> None:
    model = network().eval()
    graph = trace(model)
    assert sorted(g.size for g in graph.groups) == sorted(REMOVABLE[network])
    assert compare(model, graph, half(graph), IMAGE) < 1e-5


@pytest.mark.parametrize("network", REMOVABLE, ids=lambda network: network.__name__)
def test_a_cut_network_trains(network: type[nn.Module]) -> None:
    graph = trace(model := network().eval())
    small = cut(model, graph, half(graph)).train()
    outputs = small(IMAGE)
    leaves = outputs["sr"] if isinstance(outputs, dict) else [outputs]
    sum(leaf.square().mean() for leaf in leaves).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (GroupNormed, "normalised over by aten.native_group_norm in norm"),
        (Unknown, "drc has no rule for aten.sort"),
        (HardCoded, "cutting it breaks the forward pass"),
    ],
    ids=["group_norm", "unknown_op", "hard_coded_size"],
)
def test_says_why_channels_stay(network: type[nn.Module], reason: str) -> None:
    graph = trace(network().eval())
    head = next(f for f in graph.frozen if f.name == "head" and f.size == 8)
    assert head.reason.startswith(reason)
    assert [g.name for g in graph.groups] == ["middle"]


def test_the_model_is_left_as_it_was() -> None:
    model = Residual().train()
    before = copy.deepcopy(model.state_dict())
    graph = trace(model)
    cut(model, graph, half(graph))
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not model._forward_hooks and not model.head._forward_pre_hooks


def test_fixed_parameters_stay_whole() -> None:
    model = Plain().eval()
    model.head.requires_grad_(False)
    graph = trace(model)
    assert not graph.groups
    assert any("head.weight is fixed" in f.reason for f in graph.frozen)


def test_a_network_that_does_not_run_is_one_clear_line() -> None:
    with pytest.raises(ModelError, match="runs on no 3-channel image") as caught:
        trace(nn.Sequential(conv(5, 4), conv(4, 3)))
    assert "\n" not in str(caught.value)


def test_drn_has_all_its_groups_and_nothing_else_frozen() -> None:
    graph = trace(build("drn_s"))
    sizes = {group.name: group.size for group in graph.groups}
    blocks = [n for n in sizes if n.endswith("body.0")]
    assert len(blocks) == 60 and all(sizes[n] == 64 for n in blocks)
    assert sizes["up_blocks.0.30.0"] == 64  # conv 64 -> 256 and PixelShuffle(2): atoms of four
    assert sizes["down.0.dual_module.0.0"] == 16
    assert sizes["down.1.dual_module.1"] == 64  # the stream of the first level
    assert {f.name for f in graph.frozen} == {"sub_mean", "add_mean", "tail.0"}


def test_drn_is_cut_exactly_in_float32() -> None:
    model = build("drn_tiny")
    graph = trace(model)
    image = 255 * torch.rand(1, 3, 20, 28)
    assert compare(model, graph, half(graph), image) < 1e-5 * 255


class Assembled(nn.Module):
    """A random chain of the constructions that the tracer supports."""

    def __init__(self, kinds: list[str], width: int) -> None:
        super().__init__()
        self.kinds, inner = kinds, width + 3
        self.head, self.tail = conv(3, width), conv(width, 12)
        make = {
            "residual": lambda: nn.Sequential(conv(width, inner), nn.ReLU(), conv(inner, width)),
            "concat": lambda: conv(2 * width, width),
            "depthwise": lambda: conv(width, width, groups=width),
            "attention": lambda: nn.Sequential(conv(width, 4, 1), nn.SiLU(), conv(4, width, 1)),
            "gate": lambda: conv(width, 2 * width),
            "norm": lambda: nn.BatchNorm2d(width),
            "shuffle": lambda: conv(width, 4 * width),
        }
        self.layers = nn.ModuleList(make[kind]() for kind in kinds)

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.head(x)
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            x = self.step(kind, layer, x, first)
        return F.pixel_shuffle(self.tail(x), 2)

    def step(self, kind: str, layer: nn.Module, x: Tensor, first: Tensor) -> Tensor:
        if kind == "residual":
            return x + layer(x)
        if kind == "concat":
            return layer(torch.cat((x, first), 1))
        if kind == "attention":
            return x * torch.sigmoid(layer(x.mean((2, 3), keepdim=True)))
        if kind == "gate":
            value, gate = layer(x).chunk(2, 1)
            return value * torch.tanh(gate)
        if kind == "shuffle":
            return F.avg_pool2d(F.pixel_shuffle(layer(x), 2), 2)
        return layer(x)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kinds=st.lists(
        st.sampled_from(
            ["residual", "concat", "depthwise", "attention", "gate", "norm", "shuffle"]
        ),
        min_size=1,
        max_size=4,
    ),
    width=st.integers(4, 7),
    seed=st.integers(0, 2**20),
)
def test_any_assembly_is_cut_exactly(kinds: list[str], width: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = Assembled(kinds, width).eval().double()
    graph = trace(model, torch.rand(1, 3, 8, 8, dtype=torch.float64), check=False)
    assert graph.groups
    image = torch.rand(1, 3, 9, 8, dtype=torch.float64)
    keep = {
        g.name: sorted(torch.randperm(g.size)[: 1 + seed % g.size].tolist()) for g in graph.groups
    }
    assert compare(model, graph, keep, image) < 1e-10
    everything = {g.name: list(range(g.size)) for g in graph.groups}
    assert torch.equal(cut(model, graph, everything)(image), model(image))


@pytest.mark.parametrize("network", FROZEN_WHOLE, ids=lambda network: network.__name__)
def test_what_could_come_out_wrong_stays(network: type[nn.Module]) -> None:
    graph = trace(network().eval())
    assert [g.size for g in graph.groups] == FROZEN_WHOLE[network]


def test_a_cut_that_is_not_what_it_should_be_is_refused() -> None:
    model = UnevenHalves().eval()
    graph = trace(model, check=False)
    uneven = {g.name: list(range(16 - 5 * i)) for i, g in enumerate(graph.groups)}
    with pytest.raises(ModelError, match="not what it should be"):
        check(model, graph, uneven, IMAGE)

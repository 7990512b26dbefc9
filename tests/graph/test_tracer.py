"""The tracer finds what can be cut, and cutting it equals masking it."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import (
    REMOVABLE,
    ConditionalByLayer,
    CountedByLayer,
    Plain,
    Positional,
    SometimesTaken,
    Sorted,
    UnevenHalves,
    Unknown,
    conv,
)
from torch import nn

from drc.core.errors import ModelError
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.graph.verify import check, compare
from drc.networks.registry import build

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
    ("network", "size", "reason"),
    [
        (Sorted, 8, "ordered by aten.sort"),
        (Unknown, 8, "drc has no rule for aten.histc"),
        (Positional, 8, "cutting it breaks the forward pass (index"),
        (CountedByLayer, 8, "cutting it differs from masking it by"),
        (ConditionalByLayer, 8, "cutting it breaks the forward pass (AssertionError"),
        (SometimesTaken, 8, "cutting it breaks the forward pass"),
    ],
    ids=lambda case: case.__name__ if isinstance(case, type) else "",
)
def test_says_why_channels_stay(network: type[nn.Module], size: int, reason: str) -> None:
    """What a channel's place, or the number of channels, decides is no network of fewer."""
    graph = trace(network().eval())
    head = next(f for f in graph.frozen if f.name == "head" and f.size == size)
    assert head.reason.startswith(reason)
    assert [g.name for g in graph.groups] == [n for n in ("middle",) if hasattr(network(), n)]


def test_fixed_parameters_stay_whole() -> None:
    model = Plain().eval()
    model.head.requires_grad_(False)
    graph = trace(model)
    assert not graph.groups
    assert any("head.weight is fixed" in f.reason for f in graph.frozen)


def test_a_network_that_does_not_run_is_one_clear_line() -> None:
    with pytest.raises(ModelError, match="runs on no 3-, 1-, 4-, 2-, 6-channel") as caught:
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


def test_a_cut_that_is_not_what_it_should_be_is_refused() -> None:
    """A graph that was not verified, of a network that counts its channels."""
    model = CountedByLayer().eval()
    graph = trace(model, check=False)
    with pytest.raises(ModelError, match="not what it should be"):
        check(model, graph, {"head": list(range(5))}, IMAGE)


def test_blocks_must_keep_equally_many() -> None:
    model = UnevenHalves().eval()
    graph = trace(model)
    assert [(g.name, g.size, g.blocks) for g in graph.groups] == [("head", 16, 2)]
    with pytest.raises(ModelError, match="one keep set for each of 2 blocks"):
        cut(model, graph, {"head": [[0, 1], [2]]})


def test_no_group_is_blamed_for_a_lack_of_memory() -> None:
    class Starving(nn.Module):
        """Runs dense; what is cut finds no memory."""

        def __init__(self) -> None:
            super().__init__()
            self.head, self.tail = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.head.weight.shape[0] < 16:
                raise MemoryError
            return self.tail(self.head(x).relu())

    with pytest.raises(MemoryError):
        trace(Starving())

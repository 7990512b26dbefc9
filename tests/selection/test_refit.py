"""The closed-form refit, on networks whose answer is known and on the shipped one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import drc
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.graph.surgery import cut, kept_indices, removed
from drc.graph.trace import trace
from drc.selection.refit import refit


class Chain(nn.Module):
    """A head, one residual block on a stream that a parameter shifts, and a tail."""

    scale = 1

    def __init__(self, factor: float = 1.0, kernel: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 6, kernel, padding=kernel // 2)
        self.shift = nn.Parameter(torch.zeros(6, 1, 1))
        self.tail = nn.Conv2d(6, 3, 3, padding=1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x) + self.shift
        x = x + self.body(F.relu(self.inner(x))) * self.factor
        return self.tail(x)


def refitted(dense: nn.Module, keep: dict[str, list[int]], images: Tensor, **options) -> nn.Module:
    graph = trace(dense)
    small = cut(dense, graph, keep)
    kept = kept_indices(graph, removed(graph, keep))
    small.refitted = refit(dense, small, images, kept, **options)  # type: ignore[assignment]
    return small


def distance(first: nn.Module, second: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        return (first(images) - second(images)).abs().max().item()


def test_a_bias_stands_for_a_constant_channel() -> None:
    dense = Chain(kernel=1).eval()
    with torch.no_grad():
        dense.inner.weight[6], dense.inner.bias[6] = 0.0, 0.5
    images, others = torch.rand(4, 3, 24, 24), torch.rand(2, 3, 20, 28)
    small = refitted(dense, {"inner": [0, 1, 2, 3, 4, 5, 7]}, images, ridge=1e-9)
    assert distance(small, dense, others) < 1e-4
    expected = dense.body.bias + 0.5 * dense.body.weight[:, 6, 0, 0]
    assert torch.allclose(small.body.bias, expected, atol=1e-3)


def test_a_duplicate_is_taken_over_exactly() -> None:
    dense = Chain().eval()
    with torch.no_grad():
        dense.inner.weight[7], dense.inner.bias[7] = (
            2 * dense.inner.weight[2],
            2 * dense.inner.bias[2],
        )
    images, others = torch.rand(4, 3, 24, 24), torch.rand(2, 3, 20, 28)
    small = refitted(dense, {"inner": list(range(7))}, images, ridge=1e-9)
    assert small.refitted == ["body"]  # what comes after it finds nothing changed
    assert distance(small, dense, others) < 1e-4
    expected = dense.body.weight[:, 2] + 2 * dense.body.weight[:, 7]
    assert torch.allclose(small.body.weight[:, 2], expected, atol=1e-3)


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_a_block_mends_what_came_into_the_stream_before_it(factor: float) -> None:
    """The stream is off by a constant, which no layer made; a fit of the sum takes it out."""
    dense = Chain(factor).eval()
    images = torch.rand(4, 3, 24, 24)
    off = {}
    for sums in (False, True):
        small = copy.deepcopy(dense)
        with torch.no_grad():
            small.shift += 0.3
        assert "body" in refit(dense, small, images, {}, sums=sums) or not sums
        off[sums] = (_stream(small, images) - _stream(dense, images)).abs().mean()
    assert off[False] > 0.25
    assert off[True] < 0.05


class Fresh(Chain):
    """The block's output goes through something before, or after, it meets the stream."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x) + self.shift
        y = self.body(F.relu(self.inner(x)))
        if self.kind == "activated in place":
            x = x + F.leaky_relu(y, 0.1, inplace=True)
        elif self.kind == "added in place":
            y.add_(x)
            x = y
        elif self.kind == "with alpha":
            x = torch.add(x, y, alpha=0.5)
        else:  # read before it is added
            x = y + torch.tanh(y) + x
        return self.tail(x)


@pytest.mark.parametrize(
    "kind", ["activated in place", "added in place", "with alpha", "read before"]
)
def test_sums_of_every_kind_bring_the_network_nearer(kind: str) -> None:
    dense, images = Fresh(kind).eval(), torch.rand(8, 3, 32, 32)
    keep = {"inner": [0, 1, 2, 3, 4, 5]}
    plain = distance(cut(dense, trace(dense), keep), dense, images)
    alone = distance(refitted(dense, keep, images, sums=False), dense, images)
    summed = distance(refitted(dense, keep, images), dense, images)
    assert summed < plain
    assert summed < 1.5 * alone


def test_the_bias_is_free_also_on_images_of_255() -> None:
    dense = Chain().eval()
    small = copy.deepcopy(dense)
    with torch.no_grad():
        small.tail.bias += 5.0
        small.shift += 1e-3  # else nothing that the tail reads is new
    refit(dense, small, torch.rand(4, 3, 24, 24) * 255, {})
    assert torch.allclose(small.tail.bias, dense.tail.bias, atol=0.5)


def _stream(network: nn.Module, images: Tensor) -> Tensor:
    """What the tail reads."""
    seen = []
    hook = network.tail.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(images)
    hook.remove()
    return seen[0]


def test_layers_called_twice_and_layers_with_few_places_stay() -> None:
    class Twice(Chain):
        def forward(self, x: Tensor) -> Tensor:
            x = self.head(x)
            for _ in range(2):
                x = x + self.body(F.relu(self.inner(x)))
            return self.tail(x)

    dense = Twice().eval()
    small = refitted(dense, {"inner": [0, 1, 2, 3]}, torch.rand(4, 3, 24, 24))
    assert small.refitted == ["tail"]
    assert refitted(dense, {"inner": [0, 1, 2, 3]}, torch.rand(1, 3, 8, 8)).refitted == []


def test_a_layer_that_is_not_trained_stays() -> None:
    dense = Chain().eval()
    dense.tail.requires_grad_(False)
    keep = {"inner": [0, 1, 2, 3]}
    assert refitted(dense, keep, torch.rand(4, 3, 24, 24)).refitted == ["body"]
    dense.requires_grad_(False)  # as one does before inference: that fixes nothing in particular
    assert refitted(dense, keep, torch.rand(4, 3, 24, 24)).refitted == ["body", "tail"]


def test_the_dense_network_stays_and_one_seed_gives_one_result() -> None:
    dense = Chain().eval()
    before = copy.deepcopy(dense.state_dict())
    images = torch.rand(8, 3, 40, 40)
    first, second, other = (
        refitted(dense, {"inner": [0, 2, 4, 6]}, images, rows=500, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["body.weight"], other["body.weight"])


def test_a_network_cut_twice_is_fitted_to_the_one_in_between() -> None:
    dense = Chain().eval()
    images = torch.rand(4, 3, 24, 24)
    once = refitted(dense, {"shift": [0, 1, 2, 4, 5], "inner": [1, 2, 3, 5, 6, 7]}, images)
    twice = refitted(once, {"shift": [0, 1, 3, 4], "inner": [0, 2, 3, 5]}, images)
    plain = cut(once, trace(once), {"shift": [0, 1, 3, 4], "inner": [0, 2, 3, 5]})
    assert distance(twice, once, images) < distance(plain, once, images)


def test_the_shipped_network_keeps_its_quality() -> None:
    """Half the parameters gone, nothing trained: the refit alone brings much of it back."""
    model, dual = drc.create_model("drn_tiny", weights="default", dual=True)
    batches = list(crop_loader(bundled_pairs(), 4, patch=24, batch=8, steps=2, seed=0))
    few = drc.SearchSettings(patches=16)
    plan = drc.search(model, batches, 0.5, settings=few, dual=dual)
    quality = {
        refits: drc.evaluate(
            drc.prune(
                model,
                plan,
                batches,
                settings=drc.PruneSettings(reconstruct=refits),
                calibration=few,
                dual=dual,
            )
        ).psnr
        for refits in (False, True)
    }
    assert quality[True] > quality[False] + 0.3

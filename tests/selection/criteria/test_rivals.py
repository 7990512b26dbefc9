"""The usual criteria, checked against small cases worked by hand and against Torch-Pruning."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch_pruning as tp
from helpers.networks import Grouped, Normed, Plain, Residual, Shuffled, conv
from torch import nn

import drc
from drc.graph.trace import trace
from drc.networks.dual import DualModel
from drc.selection.calibration import Calibration
from drc.selection.criteria.base import get_criterion, score

DATA_FREE = ("l2", "fpgm", "group_norm")


class ThreeChannels(nn.Module):
    """1x1 convolutions: SR is, in the first channel, the weighted sum of three channels."""

    scale = 1
    writers = ((3.0, 4.0), (0.0, 4.0), (0.0, 0.0))
    readers = (2.0, -1.0, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 3, 1)
        self.tail = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[:, :2, 0, 0] = torch.tensor(self.writers)
            self.head.bias.copy_(torch.tensor([100.0, 0.0, 1.0]))
            self.tail.weight.zero_()
            self.tail.weight[0, :, 0, 0] = torch.tensor(self.readers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.head(x))


def calibration(model: nn.Module, batches: list | None = None, **options) -> Calibration:
    model = model.eval()
    batches = batches or []
    example = batches[0][0] if batches else None
    return Calibration(model, trace(model, example), batches, patches=len(batches), **options)


def test_l2_by_hand() -> None:
    """Three weights per channel, of squared norms 25, 16 and 0; biases do not count."""
    found = score("l2", calibration(ThreeChannels()))["head"][0]
    assert found == pytest.approx([5 / math.sqrt(3), 4 / math.sqrt(3), 0])


def test_fpgm_by_hand() -> None:
    """Filters (3, 4), (0, 4) and (0, 0): their distances are 3, 4 and 5."""
    found = score("fpgm", calibration(ThreeChannels()))["head"][0]
    assert found == pytest.approx([3 + 5, 3 + 4, 5 + 4])


def test_group_norm_by_hand() -> None:
    """Squares of writers and readers: 25 + 4, 16 + 1, 0 + 0.25, whose mean is 15.4167."""
    found = score("group_norm", calibration(ThreeChannels()))["head"][0]
    assert found == pytest.approx(np.array([29, 17, 0.25]) / (46.25 / 3))


def two_crops() -> tuple[nn.Module, list]:
    """Channels read x0 and x1 = 0; x0 is 1 on one crop and -2 on the other; HR is -1000."""
    model = ThreeChannels()
    nn.init.zeros_(model.head.bias)
    lr = torch.zeros(2, 3, 4, 4)
    lr[0, 0], lr[1, 0] = 1, -2
    return model, [(crop[None], torch.full((1, 3, 4, 4), -1000.0)) for crop in lr]


def test_taylor_and_fisher_by_hand() -> None:
    """The loss has slope 1/3 in the first channel, so a gate's gradient is w * v * x0 / 3: that of
    the first channel 2 on one crop and -4 on the other, those of the others 0."""
    model, crops = two_crops()
    taylor = score("taylor", calibration(model, crops))["head"][0]
    fisher = score("fisher", calibration(model, crops))["head"][0]
    assert taylor == pytest.approx([(2 + 4) / 2, 0, 0])
    assert fisher == pytest.approx([(2**2 + 4**2) / 2, 0, 0])


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_the_dual_model_is_left_out(name: str) -> None:
    lr, hr = torch.rand(3, 1, 3, 6, 6), torch.rand(3, 1, 3, 12, 12)
    crops = list(zip(lr, hr, strict=True))
    data = calibration(Shuffled(), crops, dual=DualModel(2))
    torch.manual_seed(0)
    alone = Calibration(data.model, data.graph, crops, patches=3)
    found, expected = score(name, data), score(name, alone)
    assert all(np.array_equal(found[group], expected[group]) for group in expected)
    assert data.passes.count == alone.passes.count == 3
    assert data.dual is not None


def test_fisher_is_dual_taylor_without_the_dual_term() -> None:
    crops = [(torch.rand(1, 3, 6, 6), torch.rand(1, 3, 6, 6))]
    data = calibration(Residual(), crops)
    fisher, taylor = score("fisher", data), score("dual_taylor", data)
    assert all(np.array_equal(fisher[group], taylor[group]) for group in fisher)
    assert data.passes.count == 2


def test_every_writer_counts() -> None:
    """The stream of a residual network is written by its head and by both blocks."""
    model = Residual()
    data = calibration(model)
    writers = [model.head.weight, *(block[2].weight for block in model.blocks)]
    filters = torch.cat([w.detach().flatten(1) for w in writers], 1).double()
    distances = (filters[:, None] - filters).norm(dim=2).sum(1)
    squares = filters.square().mean(1).sqrt()
    assert score("fpgm", data)["head"][0] == pytest.approx(distances.numpy())
    assert score("l2", data)["head"][0] == pytest.approx(squares.numpy())


def test_a_channel_behind_a_pixelshuffle_is_four_filters() -> None:
    model = Shuffled()
    filters = model.up.weight.detach().double().reshape(6, -1)
    found = score("fpgm", calibration(model))["up"][0]
    expected = (filters[:, None] - filters).norm(dim=2).sum(1)
    assert found == pytest.approx(expected.numpy())


def test_blocks_are_scored_apart() -> None:
    """Both groups of a grouped convolution are compared within themselves."""
    model = Grouped()
    data = calibration(model)
    group = data.graph["middle"]
    assert group.blocks == 2
    filters = model.middle.weight.detach().double().flatten(1).reshape(2, 6, -1)
    expected = (filters[:, :, None] - filters[:, None]).norm(dim=3).sum(2)
    assert score("fpgm", data)["middle"] == pytest.approx(expected.numpy())


class Chain(nn.Module):
    """Convolutions with a norm and a skip, all of which Torch-Pruning understands."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm, self.tail = conv(3, 8), nn.BatchNorm2d(8), conv(8, 3)
        self.into, self.back = conv(8, 12), conv(12, 8)
        nn.init.normal_(self.norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.head(x))
        return self.tail(x + self.back(torch.relu(self.into(x))))


@pytest.mark.parametrize(
    ("network", "layers"),
    [(Plain, ["head"]), (Chain, ["head", "into"]), (Residual, ["head", "blocks.0.0"])],
)
def test_group_norm_equals_torch_pruning(network: type[nn.Module], layers: list[str]) -> None:
    model = network().eval()
    ours = score("group_norm", calibration(model))
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=(torch.rand(1, 3, 8, 8),))
    for name in layers:
        layer = model.get_submodule(name)
        theirs = graph.get_pruning_group(
            layer, tp.prune_conv_out_channels, idxs=list(range(layer.out_channels))
        )
        expected = tp.importance.GroupMagnitudeImportance(p=2)(theirs)
        assert ours[name][0] == pytest.approx(expected.numpy(), rel=1e-5)


def test_the_scale_of_a_norm_counts() -> None:
    """Not its shift, nor its running statistics; a factor that the code multiplies by does too."""
    model = Normed().eval()
    parts = (model.head.weight, model.tail.weight.transpose(0, 1))
    total = sum(w.detach().flatten(1).square().sum(1) for w in parts)
    total = total + model.norm.weight.detach() ** 2 + model.scale.detach().flatten() ** 2
    (found,) = score("group_norm", calibration(model)).values()
    assert found[0] == pytest.approx((total / total.mean()).numpy(), rel=1e-5)


def test_dead_channels_go_first() -> None:
    model = Plain()
    with torch.no_grad():
        for part in (model.head.weight, model.head.bias, model.tail.weight):
            part.zero_()
    assert not score("group_norm", calibration(model))["head"].any()


@pytest.mark.parametrize("name", DATA_FREE)
def test_magnitudes_need_no_images(name: str) -> None:
    assert get_criterion(name).data_free
    model = drc.create_model("drn_tiny")
    plan = drc.search(
        model, [], 0.3, settings=drc.SearchSettings(strategy="uniform", dual_weight=0)
    )
    pruned = drc.prune(model, plan, settings=drc.PruneSettings(importance=name))
    assert drc.complexity(pruned, (8, 8)).params == plan.budget.predicted

"""What tests of the channel graph share: keep sets, images, and how far two outputs are apart."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from drc.graph.groups import ChannelGraph
from drc.graph.ids import PER_ROW
from drc.graph.inputs import Inputs, call, tensors_of
from drc.graph.surgery import KeepSets, cut
from drc.graph.verify.masked import run_masked

Keep = dict[str, list[list[int]]]


def images(channels: int = 3) -> list[Tensor]:
    """Sizes and batches other than those that a network is traced with, float64."""
    generator = torch.Generator().manual_seed(5)
    shapes = ((2, channels, 8, 8), (3, channels, 16, 12), (1, channels, 8, 24))
    return [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def random_keep(graph: ChannelGraph, seed: int = 0) -> Keep:
    """At least two atoms of every group, and not all; each block keeps its own."""
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    for group in graph.groups:
        most = max(2, group.size - 1)
        width = 2 + int(torch.randint(most - 1, (1,), generator=generator))
        orders = [torch.randperm(group.size, generator=generator) for _ in range(group.blocks)]
        keep[group.name] = [sorted(order[:width].tolist()) for order in orders]
    return keep


def stuck(graph: ChannelGraph) -> list[tuple[str, int, str]]:
    """Channels that stay, but for the ends of the network and counts of heads."""
    fine = ("network input", "network output", PER_ROW)
    return [(f.name, f.size, f.reason) for f in graph.frozen if not f.reason.startswith(fine)]


def apart(ours: Any, theirs: Any) -> float:
    """Largest difference of two outputs; infinite where shapes differ or numbers are none."""
    first, second = tensors_of(ours), tensors_of(theirs)
    if [x.shape for x in first] != [x.shape for x in second]:
        return math.inf
    found = max((x - y).abs().max().item() for x, y in zip(first, second, strict=True))
    return math.inf if math.isnan(found) else found


def error(model: nn.Module, graph: ChannelGraph, keep: KeepSets, inputs: Inputs) -> float:
    """How far the cut network is from the masked one."""
    with torch.no_grad():
        ours = call(cut(model, graph, keep), inputs)
    return apart(ours, run_masked(model, graph, keep, inputs))


def gradients(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Of the mean squared output, by parameter, in training mode."""
    twin = copy.deepcopy(model).train()
    sum(output.square().mean() for output in tensors_of(call(twin, inputs))).backward()
    return {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}

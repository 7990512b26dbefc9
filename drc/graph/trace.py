"""The front door of the graph package: from a network to its verified channel groups."""

from __future__ import annotations

import copy

import torch
from torch import nn

from drc.errors import ModelError
from drc.graph.groups import ChannelGraph, find_groups
from drc.graph.ids import IdSpace
from drc.graph.inputs import Inputs, example_input, map_inputs
from drc.graph.sizes import SizeCall
from drc.graph.tracer import run_traced
from drc.graph.verify import CutError, verify
from drc.runtime import eval_mode


def trace(model: nn.Module, inputs: Inputs | None = None, *, check: bool = True) -> ChannelGraph:
    """Find the channel groups of a network.

    Args:
        model: any SR network; it is not changed. One on an accelerator is traced as a copy on the
            CPU.
        inputs: an example image batch, `(N, C, H, W)`, a tuple of positional arguments or a
            mapping of keyword arguments; by default the smallest image that the network takes.
        check: verify on a copy that cutting equals masking, and freeze what fails.

    Raises:
        ModelError: the network does not run on the input.
    """
    first = next(model.parameters(), None)
    if first is not None and first.device.type != "cpu":
        model = copy.deepcopy(model).cpu()
        inputs = map_inputs(lambda t: t.cpu(), inputs) if inputs is not None else None
    with eval_mode(model):
        if inputs is None:
            inputs = example_input(model)
        space, calls = run_traced(model, inputs)
        graph = find_groups(space, calls)
        if not check:
            return graph
        try:
            return verify(model, graph, inputs, strict=True)
        except CutError:
            return _with_training(model, graph, inputs, space, calls)


def _with_training(
    model: nn.Module, graph: ChannelGraph, inputs: Inputs, space: IdSpace, calls: list[SizeCall]
) -> ChannelGraph:
    """The better of two graphs: with what the forward in training mode teaches, and without.

    Training may take other paths than the traced one, and take all paths where that took some.
    """
    try:
        more = find_groups(space, calls + _traced_in_training(model, inputs, space))
        both = verify(model, more, inputs)
    except ModelError:  # it does not run in training mode
        return verify(model, graph, inputs)
    if len(both.groups) >= max(len(more.groups), len(graph.groups)):
        return both
    return max(both, verify(model, graph, inputs), key=lambda found: len(found.groups))


def _traced_in_training(model: nn.Module, inputs: Inputs, space: IdSpace) -> list[SizeCall]:
    """Trace the forward of training mode as well, on a twin whose buffers may change."""
    twin = copy.deepcopy(model, {id(p): p for p in model.parameters()}).train()
    with torch.random.fork_rng(devices=[]):
        return run_traced(twin, inputs, space)[1]


__all__ = ["trace"]

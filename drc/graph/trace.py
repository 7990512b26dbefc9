"""The front door of the graph package: from a network to its verified channel groups."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from drc.graph.groups import ChannelGraph, find_groups
from drc.graph.tracer import example_input, run_traced
from drc.graph.verify import verify
from drc.runtime import eval_mode


def trace(model: nn.Module, inputs: Tensor | None = None, *, check: bool = True) -> ChannelGraph:
    """Find the channel groups of a network.

    Args:
        model: any SR network; it is not changed. One on an accelerator is traced as a copy on the
            CPU.
        inputs: an example batch, `(N, C, H, W)`; by default the smallest that the network takes.
        check: verify on a copy that cutting equals masking, and freeze what fails.

    Raises:
        ModelError: the network does not run on the input.
    """
    first = next(model.parameters(), None)
    if first is not None and first.device.type != "cpu":
        model = copy.deepcopy(model).cpu()
        inputs = inputs.cpu() if inputs is not None else None
    with eval_mode(model):
        if inputs is None:
            inputs = example_input(model)
        graph = find_groups(run_traced(model, inputs))
        return verify(model, graph, inputs) if check else graph


__all__ = ["trace"]

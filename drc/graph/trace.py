"""From a network to its verified channel groups."""

from __future__ import annotations

import torch
from torch import nn

from drc.core.errors import ModelError
from drc.core.probe import OUT_OF_MEMORY, first_line
from drc.graph import rules  # noqa: F401  (registers what every op does to ids)
from drc.graph.groups import ChannelGraph, find_groups
from drc.graph.ids import IdSpace
from drc.graph.inputs import Inputs, call, example_input, map_inputs, tensors_of
from drc.graph.sizes.calls import SizeCall
from drc.graph.sizes.recorder import SizeRecorder
from drc.graph.surgery import twin_of
from drc.graph.tracer import Tracer, feed, plain_run, running
from drc.graph.verify import CutError, verify
from drc.networks.copying import copy_of
from drc.networks.traits import refuse_unreadable


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
    refuse_unreadable(model)
    if any(p.device.type != "cpu" for p in model.parameters()):
        model = copy_of(model).cpu()
    if inputs is not None:
        inputs = map_inputs(lambda t: t.detach().cpu().clone(), inputs)
    # A forward may write into buffers, assign weights and draw numbers: it does so on a twin.
    weights = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    twin = twin_of(model, weights).eval()
    with torch.random.fork_rng(devices=[]):
        if inputs is None:
            inputs = example_input(twin)
        space, calls = run_traced(twin, inputs)
        graph = find_groups(space, calls)
        if not check:
            return graph
        try:
            return verify(twin, graph, inputs, strict=True)
        except CutError:
            return _with_training(twin, graph, inputs, space, calls)


def _with_training(
    model: nn.Module, graph: ChannelGraph, inputs: Inputs, space: IdSpace, calls: list[SizeCall]
) -> ChannelGraph:
    """The better of two graphs: with what the forward in training mode teaches, and without.

    Training may take other paths than the traced one, and take all paths where that took some.
    """
    try:
        more = find_groups(space, calls + _traced_in_training(model, inputs, space))
    except ModelError:  # it does not run in training mode
        return verify(model, graph, inputs)
    if _facts(more) == _facts(graph):
        return verify(model, graph, inputs)
    both = verify(model, more, inputs)
    if len(both.groups) >= max(len(more.groups), len(graph.groups)):
        return both
    return max(both, verify(model, graph, inputs), key=lambda found: len(found.groups))


def _facts(graph: ChannelGraph) -> tuple[list, set]:
    """What two graphs of one network may differ in."""
    calls = {(call.module, call.op, call.dim, call.given) for call in graph.calls}
    return [(group.name, group.size, len(group.slices)) for group in graph.groups], calls


def _traced_in_training(model: nn.Module, inputs: Inputs, space: IdSpace) -> list[SizeCall]:
    """Trace the forward of training mode as well, on a twin whose buffers may change."""
    return run_traced(twin_of(model).train(), inputs, space)[1]


def run_traced(
    model: nn.Module, inputs: Inputs, space: IdSpace | None = None
) -> tuple[IdSpace, list[SizeCall]]:
    """Run `model` once; return what was learnt about its channels, and the sizes it was given.

    Network inputs and outputs are frozen. The model is neither changed nor copied.

    Args:
        model: the network.
        inputs: what to run it on.
        space: what an earlier run taught, to be added to.

    Raises:
        ModelError: the forward pass fails.
    """
    space = space or IdSpace()
    tracer = Tracer(model, space)
    recorder = SizeRecorder(tracer, model)
    with plain_run(), tracer.following_modules(), running(tracer), recorder:
        feed(tracer, inputs)
        try:
            outputs = call(model, inputs)
        except OUT_OF_MEMORY:
            raise
        except Exception as error:  # a foreign forward may raise anything
            raise ModelError(
                f"the network fails while being traced ({type(error).__name__}: "
                f"{first_line(error)})"
            ) from error
    for output in tensors_of(outputs):
        tracer.freeze(tracer.maps_of(output), "network output")
    return space, recorder.calls

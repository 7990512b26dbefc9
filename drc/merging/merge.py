"""Merge convolutions with nothing but linear ops between them, as re-parameterised networks have.

What is folded: sums of parallel branches of one input (convolutions, batch norms, the input
itself), a convolution and a following 1x1 one or the other way round, a convolution and what
scales its channels: batch norm in eval mode, constant factors. A kernel that is computed from
others in the forward is computed once. A merge that would move a border or cost more than its parts
is left out. The result is an ordinary network for running and exporting.
"""

from __future__ import annotations

import inspect
import io
from contextlib import redirect_stderr
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from drc.core.probe import OUT_OF_MEMORY
from drc.graph.inputs import Inputs, call, example_input, map_inputs, tensors_of
from drc.graph.sizes.resized import ResizedForward
from drc.graph.surgery import twin_of
from drc.graph.verify.checker import difference
from drc.merging.linear_ops import COMPUTED, LinearOps, is_plain, opaque
from drc.networks.copying import copy_of
from drc.networks.traits import ATTRIBUTE, plain_network

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_TOLERANCE = 1e-4  # of the largest output; float32 rounding through deep networks stays below


@dataclass
class _Tally:
    """What became of the parts: ops that are gone, convolutions in their place, why not more."""

    ops: int = 0
    layers: int = 0
    changed: bool = False
    reason: str = ""

    def in_words(self, before: nn.Module, after: nn.Module) -> str:
        counts = [sum(p.numel() for p in network.parameters()) for network in (before, after)]
        made = "one convolution" if self.layers == 1 else f"{self.layers} convolutions"
        words = f"{self.ops} linear ops became {made}, " if self.layers else ""
        return f"{words}{counts[0]:,} parameters became {counts[1]:,}"


def merge(
    model: nn.Module, inputs: Inputs | None = None, notes: list[str] | None = None
) -> nn.Module:
    """Return a copy in eval mode with fewer layers and, within rounding, the same outputs.

    Where a part's forward cannot be followed by torch.fx, its children are taken one by one. The
    outputs are compared on the example inputs, and on a wider image; if they differ the copy is
    not merged.

    Args:
        model: any network; it is not changed. Save a compressed one before: what `drc.save` writes
            of a merged one cannot be loaded.
        inputs: what its forward takes; by default the smallest image it runs on.
        notes: gets a sentence that says what was merged, or why nothing was.

    Raises:
        ModelError: the network runs on no image.
    """
    model = plain_network(model, image_alone=inputs is None)
    plain = copy_of(model).eval()
    if inputs is None:
        inputs = example_input(plain)
    tally = _Tally()
    with torch.no_grad():
        merged = _merged(copy_of(plain), tally)
        why = _difference(plain, merged, inputs) if tally.changed else "nothing in it can be merged"
    if notes is not None:
        untraced = f" (torch.fx cannot follow all of it: {tally.reason})" if tally.reason else ""
        notes.append((why or tally.in_words(plain, merged)) + untraced)
    return plain if why else merged


class MergedNetwork(fx.GraphModule):
    """What `merge` makes of a module; copies keep what drc knows of it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> MergedNetwork:
        twin = cast("MergedNetwork", super().__deepcopy__(memo))
        _pass_on(self, twin)
        return twin


def _pass_on(module: nn.Module, twin: nn.Module) -> None:
    """Pass on what drc and its users ask of a network."""
    for name in (ATTRIBUTE, "scale", "value_range"):
        value = getattr(module, name, None)
        if value is not None and not isinstance(value, (Tensor, nn.Module)):
            setattr(twin, name, value)


class _Tracer(fx.Tracer):
    """Follows a forward with its parameters as they are, so that what depends on them alone is
    computed once: networks that re-parameterise on the fly do that in every forward."""

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            opaque(m) or is_plain(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)
        )


def _merged(module: nn.Module, tally: _Tally) -> nn.Module:
    """`module`, its parts changed in place, or what replaces it."""
    if type(module).__module__.startswith("torch.nn") and not list(module.children()):
        return module
    tracer = _traced(module, tally)
    if tracer is None:
        _merge_children(module, tally)
        return module
    for node in tracer.graph.nodes:
        if node.op == "call_module":
            _merge_children(module.get_submodule(str(node.target)), tally)
    found = MergedNetwork(_used(module, tracer), tracer.graph, type(module).__name__)
    ops, layers = fold(found)
    found = MergedNetwork(found, found.graph, type(module).__name__)  # leaves out what nothing uses
    if not layers and _convolutions(found) == _convolutions(module):
        return module
    tally.ops, tally.layers, tally.changed = tally.ops + ops, tally.layers + layers, True
    _pass_on(module, found)
    if "forward" in module.__dict__:
        found.forward = ResizedForward(found)  # keeps the rules of the modules around away
    return found.eval()


def _merge_children(module: nn.Module, tally: _Tally) -> None:
    if not type(module).__module__.startswith("torch.nn") or isinstance(module, _CONTAINERS):
        for name, child in module.named_children():
            setattr(module, name, _merged(child, tally))


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Conv2d) for part in module.modules())


def _traced(module: nn.Module, tally: _Tally) -> _Tracer | None:
    if opaque(module) or _has_options(module):
        return None
    tracer = _Tracer()
    try:
        # On a twin: a forward may keep what it sees, which here is what the tracer shows it.
        tracer.trace(twin_of(module))
        return tracer
    except Exception as error:  # control flow on values, and whatever a foreign forward does
        tally.reason = tally.reason or " ".join(str(error).split())[:120]
        return None


def _used(module: nn.Module, tracer: _Tracer) -> dict[str, Any]:
    """By name, the modules and tensors that the traced forward uses or the tracer computed."""
    targets = {str(n.target) for n in tracer.graph.nodes if n.op in ("call_module", "get_attr")}
    made = vars(tracer.root)
    return {
        target: made[target] if target.startswith(COMPUTED) else attrgetter(target)(module)
        for target in targets
    }


def _has_options(module: nn.Module) -> bool:
    """Whether the forward has arguments that may be left out, which a tracer takes for given."""
    arguments = list(inspect.signature(type(module).forward).parameters.values())
    return any(a.default is not a.empty or a.kind is not a.POSITIONAL_OR_KEYWORD for a in arguments)


def fold(network: fx.GraphModule) -> tuple[int, int]:
    """Fold linear ops of a traced network in place.

    Returns:
        How many ops are gone, and how many convolutions are there in their place.
    """
    ops = LinearOps(network)
    ops.drop_empty()
    for node in network.graph.nodes:
        ops.read(node)
    folded = layers = 0
    for node in reversed(list(network.graph.nodes)):
        form = ops.forms.get(node)
        if not node.users and (ops.knows(node) or node.op == "get_attr"):
            network.graph.erase_node(node)  # it went into a convolution further on
        elif form is not None and form.layers and form.ops > 1:
            name = f"merged_{node.name}"
            network.add_submodule(name, form.conv.layer(form.like))
            with network.graph.inserting_before(node):
                new = network.graph.call_module(name, (form.source,))
            node.replace_all_uses_with(new)
            network.graph.erase_node(node)
            folded, layers = folded + form.ops, layers + 1
    return folded, layers


def _difference(plain: nn.Module, merged: nn.Module, inputs: Inputs) -> str:
    """Why the merged network is not what the plain one is; empty where it is."""
    for given in (inputs, map_inputs(_wider, inputs)):
        try:
            expected = call(plain, given)
        except OUT_OF_MEMORY:
            raise
        except Exception:  # not every network takes an image that is twice as wide
            if given is inputs:
                raise
            continue
        largest = max((float(x.abs().max()) for x in tensors_of(expected) if x.numel()), default=0)
        try:
            with redirect_stderr(io.StringIO()):  # torch.fx prints what it raises
                error = difference(call(merged, given), expected)
        except OUT_OF_MEMORY:
            raise
        except Exception as failure:  # a forward may ask for parts that are gone
            return f"not merged: {type(failure).__name__}: {' '.join(str(failure).split())[:120]}"
        if error > _TOLERANCE * largest:
            return f"not merged: its outputs would differ by {error:.2g}, of {largest:.2g} at most"
    return ""


def _wider(image: Tensor) -> Tensor:
    """An image twice as wide, so that no size of the first is taken for every size."""
    return torch.cat([image, image.flip(-1)], -1) if image.ndim == 4 else image

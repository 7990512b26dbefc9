"""Read the nodes of a traced network as convolutions of an earlier node, as far as they are."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from drc.graph.sizes.resized import ResizedForward
from drc.merging.affine import Border, Conv, Pair, identity, in_sequence, per_channel, side_by_side

_ADD = {operator.add, operator.iadd, torch.add, "add", "add_", "__add__", "__radd__", "__iadd__"}
_MULTIPLY = {
    operator.mul, operator.imul, torch.mul, "mul", "mul_", "__mul__", "__rmul__", "__imul__",
}  # fmt: skip
COMPUTED = "_tensor_constant"
"""How torch.fx begins the names of tensors that are none of the network's."""

_EMPTY = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@dataclass(frozen=True)
class Form:
    """A node as a convolution of another.

    Attributes:
        source: the other node.
        conv: the map.
        ops: how many ops of the network it stands for.
        layers: how many of them are convolutions.
        like: a weight, for number type and device.
    """

    source: fx.Node
    conv: Conv
    ops: int
    layers: int
    like: Tensor


@dataclass(frozen=True)
class _Term:
    """What a sum adds: `factor` times a node, or times the form of one that is used here alone."""

    source: fx.Node
    form: Form | None
    factor: float = 1.0


class LinearOps:
    """The nodes of a network that are convolutions of an earlier node.

    A node that several others use is no part of what they are folded into.

    Args:
        network: traced, in eval mode.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        self.forms: dict[fx.Node, Form] = {}
        self._network = network
        self._sums: dict[fx.Node, list[_Term]] = {}

    def knows(self, node: fx.Node) -> bool:
        """Whether the value of a node, and nothing else, is what it is for."""
        return node in self.forms or node in self._sums

    def drop_empty(self) -> None:
        """Take out what does nothing in eval mode, and the 0 that Python's `sum` begins with."""
        for node in list(self._network.graph.nodes):
            same = self._same_as(node)
            if same is not None:
                node.replace_all_uses_with(same)
                self._network.graph.erase_node(node)

    def read(self, node: fx.Node) -> None:
        """Find the form of a node whose inputs are read already."""
        if not node.users:
            return  # what it is for, if anything, is writing in place
        if _calls(node, _MULTIPLY):
            self._read_product(node)
        elif _calls(node, _ADD):
            self._read_sum(node)
        else:
            self._read_layer(node)

    def _same_as(self, node: fx.Node) -> fx.Node | None:
        inputs = node.all_input_nodes
        if node.op == "call_module":
            empty = isinstance(self._network.get_submodule(str(node.target)), _EMPTY)
        else:
            empty = _calls(node, _ADD) and any(type(a) is int and a == 0 for a in node.args)
        return inputs[0] if empty and len(inputs) == 1 else None

    def _read_layer(self, node: fx.Node) -> None:
        form = None
        if node.op == "call_module" and len(node.all_input_nodes) == 1:
            form = _of_module(
                node.all_input_nodes[0], self._network.get_submodule(str(node.target))
            )
        elif _calls(node, {F.conv2d}):
            form = self._of_function(node)
        if form is not None:
            self.forms[node] = self._joined(form) or form

    def _joined(self, form: Form) -> Form | None:
        """A form together with that of its source, where nothing else uses the source."""
        before = self.forms.get(form.source)
        if before is None or len(form.source.users) > 1:
            return None
        conv = in_sequence(before.conv, form.conv)
        if conv is None:
            return None
        like = before.like if before.layers else form.like
        return Form(before.source, conv, before.ops + form.ops, before.layers + form.layers, like)

    def _of_function(self, node: fx.Node) -> Form | None:
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        weight, bias = self._constant(given["weight"]), self._constant(given.get("bias"))
        known = bias is not None or given.get("bias") is None
        if weight is None or not known or not isinstance(given["input"], fx.Node):
            return None
        conv = _conv(
            weight, bias, given.get("stride", 1), given.get("padding", 0),
            given.get("dilation", 1), given.get("groups", 1),
        )  # fmt: skip
        # A kernel that is no tensor of the network's was computed in the forward: one op more.
        computed = str(given["weight"].target).startswith(COMPUTED)
        return None if conv is None else Form(given["input"], conv, 1 + computed, 1, weight)

    def _read_product(self, node: fx.Node) -> None:
        for value, other in (node.args[:2], node.args[1::-1]):
            before = self.forms.get(value) if isinstance(value, fx.Node) else None
            scale = None if before is None else self._scale(other, before.conv)
            if before is not None and scale is not None:
                shift = torch.zeros_like(scale)
                form = self._joined(Form(value, per_channel(scale, shift), 1, 0, before.like))  # type: ignore[arg-type]
                if form is not None:
                    self.forms[node] = form
                return

    def _scale(self, factor: Any, conv: Conv) -> Tensor | None:
        """A factor that does not depend on the image, one for each output of `conv`."""
        ones = conv.bias.new_ones(conv.outputs)
        if _is_number(factor):
            return ones * factor
        value = self._constant(factor)
        if value is None or value.ndim > 4:
            return None
        per_output = value.ndim >= 3 and value.shape[-3] == value.numel() == conv.outputs
        return ones * value.double().flatten() if per_output or value.numel() == 1 else None

    def _read_sum(self, node: fx.Node) -> None:
        alpha: Any = node.kwargs.get("alpha", 1)
        added = [arg for arg in node.args if isinstance(arg, fx.Node)]
        if len(node.args) != 2 or len(added) != 2 or not _is_number(alpha):
            return
        scaled = [replace(term, factor=term.factor * alpha) for term in self._split(added[1])]
        terms = [*self._split(added[0]), *scaled]
        form = _folded(terms)
        if form is None:
            self._sums[node] = terms
        else:
            self.forms[node] = form

    def _split(self, node: fx.Node) -> list[_Term]:
        """The terms that a node adds to a sum."""
        if len(node.users) == 1 and node in self.forms:
            return [_Term(self.forms[node].source, self.forms[node])]
        if len(node.users) == 1 and node in self._sums:
            return self._sums[node]
        return [_Term(node, None)]

    def _constant(self, node: Any) -> Tensor | None:
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return None
        value = attrgetter(str(node.target))(self._network)
        return value.detach() if isinstance(value, Tensor) else None


def _folded(terms: list[_Term]) -> Form | None:
    """A sum as one convolution, where all its terms are convolutions of one node."""
    forms = [term.form for term in terms if term.form is not None]
    if len({term.source for term in terms}) > 1 or not any(form.layers for form in forms):
        return None
    channels = forms[0].conv.inputs
    convs = [
        (identity(channels, forms[0].like) if term.form is None else term.form.conv)
        .times(term.factor)
        for term in terms
    ]  # fmt: skip
    # The largest first, since it may have room for the taps of all others.
    convs.sort(key=lambda conv: conv.weight.numel(), reverse=True)
    total: Conv | None = convs[0]
    for conv in convs[1:]:
        total = None if total is None else side_by_side(total, conv)
    if total is None:
        return None
    ops = sum(form.ops for form in forms) + len(terms) - 1
    like = next(form.like for form in forms if form.layers)
    return Form(terms[0].source, total, ops, sum(form.layers for form in forms), like)


def opaque(module: nn.Module) -> bool:
    """Whether more happens in a call of a module than its class's forward says."""
    own = module.__dict__.get("forward")
    rewritten = own is not None and not (isinstance(own, ResizedForward) and not own.rules)
    return rewritten or bool(module._forward_hooks or module._forward_pre_hooks)


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module does what `kind` does, though its class may be derived from it."""
    return isinstance(module, kind) and type(module).forward is kind.forward and not opaque(module)


def _of_module(source: fx.Node, module: nn.Module) -> Form | None:
    if is_plain(module, nn.Conv2d):
        assert isinstance(module, nn.Conv2d)
        conv = _conv(
            module.weight, module.bias, module.stride, module.padding, module.dilation,
            module.groups, module.padding_mode,
        )  # fmt: skip
        return None if conv is None else Form(source, conv, 1, 1, module.weight)
    if not is_plain(module, nn.BatchNorm2d):
        return None
    assert isinstance(module, nn.BatchNorm2d)
    if module.running_mean is None or module.running_var is None:
        return None
    scale = (module.running_var.double() + module.eps).rsqrt()
    shift = -module.running_mean.double() * scale
    if module.weight is not None:
        scale, shift = scale * module.weight.double(), shift * module.weight.double()
        shift = shift + module.bias.double()
    return Form(source, per_channel(scale.detach(), shift.detach()), 1, 0, module.running_mean)


def _conv(
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    border: Border = "zeros",
) -> Conv | None:
    """The arguments of a convolution of torch's as a `Conv`; None for what only torch can do."""
    steps = _pair(dilation)
    if padding == "same":
        total = [step * (taps - 1) for step, taps in zip(steps, weight.shape[2:], strict=True)]
        if any(pad % 2 for pad in total):
            return None  # one side gets more
        padding = tuple(pad // 2 for pad in total)
    pads = (0, 0) if padding == "valid" else _pair(padding)
    numbers = (*_pair(stride), *steps, *pads, groups)
    if weight.ndim != 4 or not all(_is_number(number) for number in numbers):
        return None
    wide = weight.detach().double()
    zero = wide.new_zeros(wide.shape[0])
    shift = zero if bias is None else bias.detach().double()
    return Conv(wide, shift, _pair(stride), pads, steps, groups, border)


def _pair(value: Any) -> Pair:
    both = value if isinstance(value, (tuple, list)) else (value,)
    return both[0], both[-1]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _calls(node: fx.Node, ops: set[Any]) -> bool:
    return node.op in ("call_function", "call_method") and node.target in ops

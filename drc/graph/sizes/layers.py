"""Calls of whole layers that are given a width: grouped convolution, norms, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.nn import functional as F

from drc.graph.attention import narrow_attention
from drc.graph.sizes.calls import SizeCall, SizeRule, Sizes, kept_length
from drc.graph.sizes.ops import Function, Given, SizeOp, has_lengths, register

_SPATIAL: dict[Function, int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


@register
class Groups(SizeOp):
    """How many groups a convolution has, where whole groups go."""

    name = "groups"
    functions = (F.conv1d, F.conv2d, F.conv3d)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
        tensor = args[0] if args else kwargs.get("input")
        if tensor is None or groups == 1:
            return None
        return Given(tensor, (groups,), tensor.ndim - 1 - _SPATIAL[func])

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        assert call.dim is not None
        groups, channels = call.given[0], call.shape[call.dim]
        for ids in call.source:
            if ids.shape[call.dim] > 1 and groups > channels // groups:
                left = alive[ids.movedim(call.dim, 0).reshape(groups, -1).numpy()]
                return (int(left.any(1).sum()),)
        return (None,)

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(*args[:6], **{**kwargs, "groups": sizes[0]})


@register
class Normalised(SizeOp):
    """The lengths that a layer norm normalises over."""

    name = "layer_norm"
    functions = (F.layer_norm, F.rms_norm)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        shape = args[1] if len(args) > 1 else kwargs["normalized_shape"]
        return Given(args[0], tuple(shape))

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        first = len(call.shape) - len(call.given)
        return tuple(
            kept_length(call.source, first + index, alive) for index in range(len(call.given))
        )

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        rest = {k: v for k, v in kwargs.items() if k != "normalized_shape"}
        return func(args[0], sizes, *args[2:], **rest)


@register
class AttentionScale(SizeOp):
    """torch divides by the root of the width it sees; what was trained was the dense one's."""

    name = "attention"
    functions = (F.scaled_dot_product_attention,)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        query = args[0] if args else kwargs["query"]
        return Given(query, (), query.ndim - 1) if kwargs.get("scale") is None else None

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        if call.dim is None or kept_length(call.source, call.dim, alive) is None:
            return (None,)
        return call.given or (call.shape[call.dim],)

    def rewritten(self, rule: SizeRule, given: Given) -> tuple | None:
        return rule.new if has_lengths(given.tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(*args, **{**kwargs, "scale": sizes[0] ** -0.5})


@register
class MultiHead(SizeOp):
    """torch's attention modules; `given` is the width of all heads together."""

    name = "heads"
    functions = (F.multi_head_attention_forward,)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        packed = len(args) > 5 and args[5] is not None
        return Given(args[5], (args[3],), 0) if packed else None

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        length = kept_length(call.source, 0, alive)
        return (None,) if length is None else (length // 3,)

    def rewritten(self, rule: SizeRule, given: Given) -> tuple | None:
        # No sizes, and another function: torch's checks the heads against the stream.
        return () if has_lengths(given.tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        query, key, value, dense, heads, weight, bias, *_, dropout, out, out_bias = args[:13]
        return narrow_attention(
            query, key, value, dense, heads, weight, bias, out, out_bias,
            dropout=dropout if kwargs.get("training", True) else 0.0,
            padding=kwargs.get("key_padding_mask"),
            mask=kwargs.get("attn_mask"),
            need_weights=kwargs.get("need_weights", True),
            average=kwargs.get("average_attn_weights", True),
        )  # fmt: skip

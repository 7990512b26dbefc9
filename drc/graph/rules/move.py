"""Data movement: the very same op is applied to the ids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from drc.graph.tracer import Tracer, rule


@rule(
    "aten::permute", "aten::transpose", "aten::t", "aten::expand", "aten::slice", "aten::select",
    "aten::unsqueeze", "aten::squeeze", "aten::diagonal", "aten::unbind", "aten::split",
    "aten::split_with_sizes", "aten::chunk", "aten::roll", "aten::flip", "aten::rot90",
    "aten::reflection_pad1d", "aten::reflection_pad2d", "aten::replication_pad1d",
    "aten::replication_pad2d", "aten::pixel_shuffle", "aten::pixel_unshuffle",
    "aten::channel_shuffle", "aten::native_channel_shuffle", "aten::unfold", "aten::im2col",
    "aten::repeat", "aten::index_select", "aten::index", "aten::cat", "aten::stack",
    "aten::movedim", "aten::narrow", "aten::unsafe_split", "aten::unsafe_chunk",
)  # fmt: skip
def move(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Ops that only copy or rearrange elements; what they pad with belongs to no channel."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    depth = max((len(tracer.layers(tensor)) for tensor in tensors), default=0)
    moved = [_apply(tracer, func, args, kwargs, layer) for layer in range(depth)]
    _distribute(tracer, outputs, moved)


@rule("aten::constant_pad_nd")
def pad(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    moved = [func(ids, args[1], 0) for ids in tracer.layers(args[0])]
    tracer.set_layers(outputs, moved)


@rule("aten::view", "aten::_unsafe_view", "aten::reshape", "aten::_reshape_alias")
def reshape(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Views of broadcast ids may need a copy, which `reshape` makes."""
    if args[1:] and not isinstance(args[1], (list, tuple)):
        return same(tracer, func, args, kwargs, outputs)  # view(dtype)
    tracer.set_layers(outputs, [ids.reshape(outputs.shape) for ids in tracer.layers(args[0])])


@rule(
    "aten::clone", "aten::alias", "aten::detach", "aten::contiguous", "aten::_to_copy",
    "aten::lift_fresh", "aten::lift", "aten::to", "aten::lift_fresh_copy",
)  # fmt: skip
def same(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    copies = outputs.data_ptr() != args[0].data_ptr()
    layers = [
        tracer.own(ids.clone()) if copies and tracer.owns(ids) else ids
        for ids in tracer.layers(args[0])
    ]
    tracer.set_layers(outputs, layers)


def _apply(tracer: Tracer, func: Any, args: tuple, kwargs: dict, layer: int) -> Any:
    """Run the op on one layer of every tensor that carries channels."""

    def ids_of(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or (not leaf.is_floating_point() and not leaf.is_complex()):
            return leaf  # an index tensor stays what it is
        layers = tracer.layers(leaf)
        if layer < len(layers):
            return layers[layer]
        return torch.zeros((), dtype=torch.int64).expand(leaf.shape)

    args, kwargs = tree_map(ids_of, (args, kwargs))
    try:
        return func(*args, **kwargs)
    except (NotImplementedError, RuntimeError):  # some kernels know no integers
        args, kwargs = tree_map(_as_float, (args, kwargs))
        return tree_map(_as_int, func(*args, **kwargs))


def _as_float(leaf: Any) -> Any:
    """Ids as float64, which holds integers exactly up to 2**53."""
    return leaf.double() if isinstance(leaf, Tensor) and leaf.dtype == torch.int64 else leaf


def _as_int(leaf: Any) -> Any:
    return leaf.long() if isinstance(leaf, Tensor) else leaf


def _distribute(tracer: Tracer, outputs: Any, moved: list[Any]) -> None:
    if isinstance(outputs, Tensor):
        tracer.set_layers(outputs, moved)
        return
    for index, output in enumerate(outputs):
        tracer.set_layers(output, [layer[index] for layer in moved])

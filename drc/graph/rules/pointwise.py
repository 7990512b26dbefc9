"""Element-wise ops: ids that meet are tied, with broadcasting. Also factories and unknown ops."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from drc.graph.ids import NO_CHANNEL, varying_dims
from drc.graph.rules.common import merge
from drc.graph.tracer import Layers, Tracer, rule


@rule("pointwise", "aten::_prelu_kernel", "aten::where", "aten::dropout", "aten::native_dropout")
def pointwise(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    for output in tree_leaves(outputs):
        if isinstance(output, Tensor):
            layers = combine(tracer, tensors, output.shape)
            _store(tracer, args, output, layers)


def combine(tracer: Tracer, tensors: list[Tensor], shape: torch.Size) -> Layers:
    """Tie the ids that meet when `tensors` are broadcast to `shape`; return the result's layers.

    Layers that share a varying dimension are the same channels. A layer that shares none, and
    varies where another tensor has a real size (a table of positions, say), is frozen.
    """
    entries = []
    for tensor in tensors:
        for ids in tracer.layers(tensor):
            wide = ids.expand(shape)
            entries.append((tensor, wide, varying_dims(wide)))
    partner = list(range(len(entries)))
    for a, b in combinations(range(len(entries)), 2):
        if entries[a][0] is not entries[b][0] and entries[a][2] & entries[b][2]:
            tracer.space.tie(entries[a][1], entries[b][1])
            old, new = partner[b], partner[a]
            partner = [new if p == old else p for p in partner]
    for _, ids, dims in entries:
        tied = [other for other, _, along in entries if along & dims]
        strangers = [
            t for t in tensors if tracer.layers(t) and not any(t is other for other in tied)
        ]
        if any(_is_untracked(tracer, t, dim, shape) for dim in dims for t in strangers):
            tracer.freeze([ids], "meets a dimension that carries no channels")
    merged: dict[int, Tensor] = {}
    for (_, ids, _), root in zip(entries, partner, strict=True):
        merged[root] = merge(merged[root], ids) if root in merged else ids
    return list(merged.values())


def _is_untracked(tracer: Tracer, tensor: Tensor, dim: int, shape: torch.Size) -> bool:
    own = dim - (len(shape) - tensor.ndim)
    if own < 0 or tensor.shape[own] == 1:
        return False
    return not any(dim in varying_dims(ids.expand(shape)) for ids in tracer.layers(tensor))


def _store(tracer: Tracer, args: tuple, output: Tensor, layers: Layers) -> None:
    """Give `output` its layers; an in-place op must also reach the tensors it is a view of."""
    if args and output is args[0]:
        write(tracer, output, layers)
    else:
        tracer.set_layers(output, layers)


def write(tracer: Tracer, target: Tensor, layers: Layers) -> None:
    """Overwrite the ids of `target`.

    Where the ids are the tensor's own storage, views and bases see the change. Elsewhere the old
    and the new ids are tied, which is safe, if less prunable than it could be.
    """
    own = tracer.layers(target)
    if len(own) == len(layers) == 1 and tracer.owns(own[0]):
        own[0].copy_(layers[0].expand(own[0].shape))
    elif len(own) == len(layers) and not any(bool((ids == NO_CHANNEL).any()) for ids in own):
        for mine, new in zip(own, layers, strict=True):
            tracer.space.tie(mine, new)
    elif target.untyped_storage().nbytes() == target.numel() * target.element_size():
        tracer.set_layers(target, layers)
    else:
        tracer.freeze([*own, *layers], "written into part of another tensor")


@rule("aten::copy_")
def copy(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    target, source = args[0], args[1]
    layers = [ids.expand(target.shape) for ids in tracer.layers(source)]
    write(tracer, target, layers)


@rule(
    "aten::zeros", "aten::ones", "aten::empty", "aten::full", "aten::zeros_like",
    "aten::ones_like", "aten::empty_like", "aten::full_like", "aten::new_zeros",
    "aten::new_ones", "aten::new_empty", "aten::new_full", "aten::empty_strided",
    "aten::new_empty_strided",
)  # fmt: skip
def factory(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """A new tensor has no channels yet; ids of its own let later writes fill it piece by piece."""
    tracer.set_layers(outputs, [tracer.own(torch.zeros(outputs.shape, dtype=torch.int64))])


@rule("unknown")
def unknown(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    layers = [ids for leaf in tree_leaves((args, kwargs)) for ids in tracer.layers(leaf)]
    name = func._schema.name.replace("::", ".")
    tracer.freeze(layers, f"drc has no rule for {name}")

"""Element-wise ops: ids that meet are tied, with broadcasting. Also factories, gates
and unknown ops."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from drc.graph.ids import NO_CHANNEL, IdMaps, varying_dims
from drc.graph.inputs import tensors_of
from drc.graph.rules.common import bind, first_output, merge, op_name
from drc.graph.tracer import Tracer, rule


@rule(
    "pointwise", "aten::_prelu_kernel", "aten::where", "aten::dropout", "aten::native_dropout",
    "aten::complex", "aten::polar", "aten::masked_fill", "aten::masked_fill_",
)  # fmt: skip
def pointwise(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    tensors = tensors_of((args, kwargs))
    for output in tensors_of(outputs):
        _store(tracer, args, output, combine(tracer, tensors, output.shape))


def combine(tracer: Tracer, tensors: list[Tensor], shape: torch.Size) -> IdMaps:
    """Tie the ids that meet when `tensors` are broadcast to `shape`; return the result's maps.

    Maps that share a varying dimension are the same channels. A map that shares none, and
    varies where another tensor has a real size (a table of positions, say), is frozen.
    """
    entries = [
        (tensor, ids.reshape([1] * (len(shape) - ids.ndim) + list(ids.shape)))
        for tensor in tensors
        for ids in tracer.maps_of(tensor)
        if len(tensors) == 1 or bool(ids.any())
    ]
    if len(tensors) == 1:
        return [ids.clone() if tracer.owns(ids) else ids for _, ids in entries]
    entries = _without_strangers(tracer, entries, tensors, len(shape))
    entries = _without_coarse(tracer, entries)
    partner = list(range(len(entries)))
    for a, b in combinations(range(len(entries)), 2):
        (one, here), (two, there) = entries[a], entries[b]
        if one is not two and varying_dims(here) & varying_dims(there):
            if here is not there:
                tracer.space.tie(here, there)
            old, new = partner[b], partner[a]
            partner = [new if p == old else p for p in partner]
    merged: dict[int, Tensor] = {}
    for (_, ids), root in zip(entries, partner, strict=True):
        merged[root] = merge(merged[root], ids) if root in merged else ids
    return list(merged.values())


Entry = tuple[Tensor, Tensor]
"""A tensor and one of its maps, in the rank of the result."""


def _without_coarse(tracer: Tracer, entries: list[Entry]) -> list[Entry]:
    """Drop the maps with one id for several of another's, such as a scale per head."""
    kept = []
    for tensor, ids in entries:
        dims = varying_dims(ids)
        finer = [i for t, i in entries if t is not tensor and dims and dims < varying_dims(i)]
        for fine in finer:
            tracer.space.nest(ids, fine)
        if not finer:
            kept.append((tensor, ids))
    return kept


def _without_strangers(
    tracer: Tracer, entries: list[Entry], tensors: list[Tensor], rank: int
) -> list[Entry]:
    """Freeze and drop the maps that vary where another tensor has no channels but a size."""
    kept = []
    for tensor, ids in entries:
        dims = varying_dims(ids)
        met = {id(other) for other, theirs in entries if varying_dims(theirs) & dims}
        strangers = [
            other
            for other in tensors
            if other is not tensor
            and id(other) not in met
            and any(bool(theirs.any()) for theirs in tracer.maps_of(other))
        ]
        if any(_has_size(t, dim, rank) for t in strangers for dim in dims):
            tracer.freeze([ids], "meets a dimension that carries no channels")
        else:
            kept.append((tensor, ids))
    return kept


def _has_size(tensor: Tensor, dim: int, rank: int) -> bool:
    own = dim - (rank - tensor.ndim)
    return own >= 0 and tensor.shape[own] > 1 and tensor.stride(own) != 0


def _store(tracer: Tracer, args: tuple, output: Tensor, maps: IdMaps) -> None:
    """Give `output` its maps; an in-place op must also reach the tensors it is a view of."""
    if args and output is args[0]:
        write(tracer, output, maps)
    else:
        tracer.set_maps(output, maps)


def write(tracer: Tracer, target: Tensor, maps: IdMaps) -> None:
    """Overwrite the ids of `target`.

    Where the ids are the tensor's own storage, views and bases see the change. Elsewhere the old
    and the new ids are tied, which is safe, if less prunable than it could be.
    """
    own = tracer.maps_of(target)
    if len(own) == 1 and tracer.owns(own[0]):
        if len(maps) == 1:
            own[0].copy_(maps[0].expand(own[0].shape).clone())  # it may be a view of itself
        else:
            tracer.freeze(maps, "written into part of another tensor")
    elif len(own) == len(maps) and not any(bool((ids == NO_CHANNEL).any()) for ids in own):
        for mine, new in zip(own, maps, strict=True):
            if mine is not new:
                tracer.space.tie(mine, new)
    elif target.untyped_storage().nbytes() == target.numel() * target.element_size():
        tracer.set_maps(target, maps)
    else:
        tracer.freeze([*own, *maps], "written into part of another tensor")


@rule("aten::copy_")
def copy(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    target, source = args[0], args[1]
    rank = target.ndim
    maps = [
        ids.reshape([1] * (rank - ids.ndim) + list(ids.shape)) for ids in tracer.maps_of(source)
    ]
    write(tracer, target, maps)


@rule("aten::scatter", "aten::scatter_", "aten::scatter_add", "aten::scatter_add_")
def scatter(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Writing at data-dependent positions along a dimension that carries no channels."""
    tensors = tensors_of((args, kwargs))
    dim = args[1] % args[0].ndim
    mixed = [
        ids for t in tensors for ids in tracer.maps_of(t) if ids.ndim > dim and ids.shape[dim] > 1
    ]
    if any(bool((ids != NO_CHANNEL).any()) for ids in mixed):
        tracer.freeze(mixed, f"rearranged by {op_name(func)}")
    _store(tracer, args, outputs, combine(tracer, tensors, outputs.shape))


@rule(
    "aten::zeros", "aten::ones", "aten::empty", "aten::full", "aten::zeros_like",
    "aten::ones_like", "aten::empty_like", "aten::full_like", "aten::new_zeros",
    "aten::new_ones", "aten::new_empty", "aten::new_full", "aten::empty_strided",
    "aten::new_empty_strided",
)  # fmt: skip
def factory(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """A new tensor has no channels yet; ids of its own let later writes fill it piece by piece."""
    if outputs.is_floating_point() or outputs.is_complex():
        tracer.set_maps(outputs, [tracer.own(torch.zeros(outputs.shape, dtype=torch.int64))])


@rule("aten::_weight_norm_interface", "aten::_weight_norm")
def weight_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """g v / |v|: the scale has one entry per index of the dimension that is kept."""
    weight = first_output(outputs)
    tracer.set_maps(weight, combine(tracer, [args[0], args[1]], weight.shape))


@rule("aten::glu")
def glu(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """First half times the sigmoid of the second: the halves are tied."""
    image = args[0]
    dim = bind(func, args, kwargs)["dim"] % image.ndim
    size, maps = image.shape[dim] // 2, []
    for ids in tracer.wide_maps(image):
        first, second = ids.narrow(dim, 0, size), ids.narrow(dim, size, size)
        tracer.space.tie(first, second)
        maps.append(first)
    tracer.set_maps(outputs, maps)


@rule("unknown")
def unknown(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    maps = [ids for leaf in tree_leaves((args, kwargs)) for ids in tracer.maps_of(leaf)]
    tracer.freeze(maps, f"drc has no rule for {op_name(func)}")

"""Convolutions and matrix products: input channels are tied to the weight's input slices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from drc.graph.ids import CONSTANT, FIXED_COUNT, NO_CHANNEL, IdMaps, distinct, varying_dims
from drc.graph.rules.common import along, as_map, first_output, split_by_variation, tie_to, varies
from drc.graph.rules.pointwise import combine
from drc.graph.tracer import Tracer, rule


@rule("aten::convolution", "aten::_convolution")
def convolution(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    image, weight, bias = args[0], args[1], args[2]
    transposed, groups = args[6], args[8]
    in_dim, out_dim = (0, 1) if transposed else (1, 0)
    reads = _one_per_index(tracer, weight, in_dim)
    writes = _one_per_index(tracer, weight, out_dim)
    maps = tracer.maps_of(image)
    # A weight convolved by another, as in merged layers: its own input channels are the batch.
    batch = [ids for ids in maps if varying_dims(ids) == {0}]
    rest = [ids for ids in maps if varying_dims(ids) != {0}]
    channels = _input_channels(tracer, rest, image.shape[1])
    if groups > 1 and weight.shape[1] == 1 and groups == image.shape[1]:
        kept = reads if transposed else writes
        tracer.space.tie(channels[:, None], kept.view(groups, -1))
        _freeze_constant(tracer, channels.repeat_interleave(len(kept) // groups), kept)
        outgoing = kept
    elif groups > 1 and not transposed and groups > weight.shape[1]:
        _keep_groups_whole(tracer, channels.view(groups, -1), writes.view(groups, -1), reads)
        outgoing = writes
    elif groups > 1:
        incoming = reads.view(groups, -1) if transposed else reads.expand(groups, -1)
        _read(tracer, channels.view(groups, -1), incoming)
        if transposed:
            tracer.space.keep_rectangular(incoming)
        outgoing = writes.repeat(groups) if transposed else writes
        if not transposed:
            tracer.space.keep_rectangular(outgoing.view(groups, -1))
    else:
        _read(tracer, channels, reads)
        outgoing = writes
    tie_to(tracer, outgoing, [bias])
    tracer.set_maps(outputs, [as_map(outgoing, 1, outputs.ndim), *batch])


def _keep_groups_whole(tracer: Tracer, channels: Tensor, writes: Tensor, reads: Tensor) -> None:
    """Many small groups lose whole groups: what one reads and writes goes together."""
    everything = torch.cat((channels, writes), 1)
    first = everything.amax(1, keepdim=True)
    tracer.space.tie(first, everything)
    tracer.space.mark_read(channels)
    tracer.freeze([reads], FIXED_COUNT)
    _freeze_constant(tracer, channels.amax(1), first[:, 0])


def _input_channels(tracer: Tracer, maps: IdMaps, size: int) -> Tensor:
    """One id per input channel, `(size,)`; maps along other dimensions are frozen."""
    inside, outside = split_by_variation(maps, 1) if size > 1 else (maps, [])
    tracer.freeze([ids for ids in outside if ids.unique().numel() > 1], "mixed by a convolution")
    channels = torch.zeros(size, dtype=torch.int64)
    for ids in inside:
        found = along(tracer, ids, 1, size)
        tracer.space.tie(channels, found)
        channels = torch.where(channels == NO_CHANNEL, found, channels)
    return channels


def _one_per_index(tracer: Tracer, weight: Tensor, dim: int) -> Tensor:
    """The weight's ids along `dim`, or NO_CHANNEL where its maps are not simply per index."""
    found = torch.zeros(weight.shape[dim], dtype=torch.int64)
    for ids in tracer.maps_of(weight):
        if not varies(ids, dim):
            continue
        if varies(ids, 1 - dim):
            tracer.freeze([ids], "a weight whose input and output channels are mixed")
        found = along(tracer, ids, dim, weight.shape[dim])
    return found


def _read(tracer: Tracer, channels: Tensor, slices: Tensor) -> None:
    """Tie what flows in to the slices that read it; a constant has nothing that could go."""
    channels, slices = torch.broadcast_tensors(channels, slices)
    tracer.space.tie(channels, slices)
    tracer.space.mark_read(slices, by_weight=True)
    _freeze_constant(tracer, channels, slices)


def _freeze_constant(tracer: Tracer, channels: Tensor, slices: Tensor) -> None:
    for constant, other in ((channels, slices), (slices, channels)):
        unread = other[(constant == NO_CHANNEL) & (other != NO_CHANNEL)]
        if unread.numel():
            tracer.freeze([unread], CONSTANT)


@rule("aten::mm", "aten::bmm", "aten::matmul", "aten::mv", "aten::dot", "aten::vdot")
def product(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    left, right = args[0], args[1]
    ours, theirs = tracer.maps_of(left), tracer.maps_of(right)
    if left.ndim == 1:
        ours = [ids[None] for ids in ours]
    if right.ndim == 1:
        theirs = [ids[:, None] for ids in theirs]
    maps = multiply(tracer, ours, theirs)
    gone = [dim for dim, tensor in ((-1, right), (-2, left)) if tensor.ndim == 1]
    for dim in gone:
        maps = [ids.squeeze(dim) for ids in maps]
    tracer.set_maps(outputs, maps)


@rule("aten::addmm", "aten::baddbmm", "aten::addmv")
def addmm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    product(tracer, func, args[1:], kwargs, outputs)
    tracer.set_maps(outputs, combine(tracer, [outputs, args[0]], outputs.shape))


@rule(
    "aten::scaled_dot_product_attention", "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_attention_math", "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention",
)  # fmt: skip
def attention(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """softmax(q k^T) v: queries are tied to keys, the values' channels flow on."""
    query, key, value = (tracer.maps_of(tensor) for tensor in args[:3])
    scores = multiply(tracer, query, [ids.transpose(-1, -2) for ids in key])
    tracer.freeze(split_by_variation(scores, -1, -2)[0], "tokens of an attention")
    tracer.set_maps(first_output(outputs), multiply(tracer, [], value))


def multiply(tracer: Tracer, left: IdMaps, right: IdMaps) -> IdMaps:
    """`(..., M, K) @ (..., K, N)`: maps along K are summed over, the others flow on."""
    sums_left, keeps_left = split_by_variation(left, -1)
    sums_right, keeps_right = split_by_variation(right, -2)
    keeps_left += _rows_of_matrices(tracer, sums_left)
    for one in sums_left:
        for two in sums_right:
            _tie_contracted(tracer, one, two)
    for maps, sums in ((left, sums_left), (right, sums_right)):
        if len(maps) > 1:  # activations have one map, weights one per dimension
            for ids in sums:
                tracer.space.mark_read(ids, by_weight=True)
    for here, there in ((sums_left, sums_right), (sums_right, sums_left)):
        if here and not there:
            tracer.freeze(here, CONSTANT)
    return [
        *_without_nested(tracer, keeps_left, [*right, *left]),
        *_without_nested(tracer, keeps_right, [*left, *right]),
    ]


def _rows_of_matrices(tracer: Tracer, maps: IdMaps) -> IdMaps:
    """A weight matrix made of one dimension of a parameter: its entries cannot go one by one.

    Its rows carry on what is frozen. (Tokens that were joined repeat their ids from row to row.)
    """
    rows = []
    for ids in maps:
        if varies(ids, ids.ndim - 2) and distinct(ids).numel() == ids.numel():
            tracer.freeze([ids], "a weight whose input and output channels are mixed")
            rows.append(ids.narrow(-1, 0, 1))
    return rows


def _without_nested(tracer: Tracer, maps: IdMaps, others: IdMaps) -> IdMaps:
    """Drop what varies from matrix to matrix only, where the matrices' channels do so too."""
    kept = []
    for ids in maps:
        dims = varying_dims(ids)
        between = bool(dims) and max(dims) < ids.ndim - 2
        finer = [other for other in others if between and dims < varying_dims(other)]
        for fine in finer:
            tracer.space.nest(ids, fine)
        if not finer:
            kept.append(ids)
    return kept


def _tie_contracted(tracer: Tracer, left: Tensor, right: Tensor) -> None:
    """Tie the ids at equal positions of the summed dimension (and of the batch)."""
    one, two = (_without_last(tracer, ids) for ids in (left.transpose(-1, -2), right))
    one, two = torch.broadcast_tensors(one, two)
    tracer.space.tie(one, two)
    tracer.space.mark_read(one)
    tracer.space.mark_read(two)
    _freeze_constant(tracer, one, two)


def _without_last(tracer: Tracer, ids: Tensor) -> Tensor:
    """One id for each row of the last dimension; a padded corner does not speak for its row."""
    if not varies(ids, ids.ndim - 1):
        return ids[..., 0]
    first = ids.amax(-1)
    tracer.space.tie(first[..., None], ids)
    return first

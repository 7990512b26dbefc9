"""Convolutions and matrix products: input channels are tied to the weight's input slices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from drc.graph.ids import NO_CHANNEL
from drc.graph.rules.common import along, place, split_by_variation
from drc.graph.rules.pointwise import combine
from drc.graph.tracer import Layers, Tracer, rule

_CONSTANT = "reads a channel that is constant or not traced"


@rule("aten::convolution", "aten::_convolution")
def convolution(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    image, weight, bias = args[0], args[1], args[2]
    transposed, groups = args[6], args[8]
    in_dim, out_dim = (0, 1) if transposed else (1, 0)
    reads = _one_per_index(tracer, weight, in_dim, out_dim)
    writes = _one_per_index(tracer, weight, out_dim, in_dim)
    channels = _input_channels(tracer, tracer.layers(image), image.shape[1])
    if groups > 1 and weight.shape[1] == 1 and groups == image.shape[1]:
        kept = reads if transposed else writes
        tracer.space.tie(channels[:, None], kept.view(groups, -1))
        _freeze_constant(tracer, channels.repeat_interleave(len(kept) // groups), kept)
        outgoing = kept
    else:
        incoming = reads.view(groups, -1) if transposed else reads.expand(groups, -1)
        _read(tracer, channels.view(groups, -1), incoming)
        if groups > 1:
            _keep_groups_equal(tracer, incoming)
        outgoing = writes.repeat(groups) if transposed else writes
        if groups > 1:
            _keep_groups_equal(tracer, outgoing.view(groups, -1))
    for ids in tracer.layers(bias):
        tracer.space.tie(ids, outgoing)
    tracer.set_layers(outputs, [place(outgoing, 1, outputs.shape)])


def _input_channels(tracer: Tracer, layers: Layers, size: int) -> Tensor:
    """One id per input channel, `(size,)`; layers along other dimensions are frozen."""
    inside, outside = split_by_variation(layers, 1) if size > 1 else (layers, [])
    tracer.freeze([ids for ids in outside if ids.unique().numel() > 1], "mixed by a convolution")
    channels = torch.zeros(size, dtype=torch.int64)
    for ids in inside:
        found = along(tracer, ids, 1)
        tracer.space.tie(channels, found)
        channels = torch.where(channels == NO_CHANNEL, found, channels)
    return channels


def _one_per_index(tracer: Tracer, weight: Tensor, dim: int, other: int) -> Tensor:
    """The weight's ids along `dim`, or NO_CHANNEL where its layers are not simply per index."""
    layers, shape = tracer.layers(weight), weight.shape
    found = torch.zeros(shape[dim], dtype=torch.int64)
    for index, ids in enumerate(layers):
        belongs = index == dim if shape[dim] == 1 else split_by_variation([ids], dim)[0]
        if not belongs:
            continue
        if split_by_variation([ids], other)[0]:
            tracer.freeze([ids], "a weight whose input and output channels are mixed")
        found = along(tracer, ids, dim)
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
            tracer.freeze([unread], _CONSTANT)


def _keep_groups_equal(tracer: Tracer, rows: Tensor) -> None:
    """Grouped layers need the same number of channels in each group: tie position by position."""
    tracer.space.tie(rows[:1], rows)


@rule("aten::mm")
def mm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    _product(tracer, args[0], args[1], outputs)


@rule("aten::bmm")
def bmm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    _product(tracer, args[0], args[1], outputs)


@rule("aten::addmm", "aten::baddbmm")
def addmm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    _product(tracer, args[1], args[2], outputs)
    tracer.set_layers(outputs, combine(tracer, [outputs, args[0]], outputs.shape))


def _product(tracer: Tracer, left: Tensor, right: Tensor, outputs: Tensor) -> None:
    """`(..., M, K) @ (..., K, N)`: layers along K are summed over, the others flow on."""
    sums_left, keeps_left = split_by_variation(tracer.layers(left), -1)
    sums_right, keeps_right = split_by_variation(tracer.layers(right), -2)
    for one in sums_left:
        for two in sums_right:
            _tie_contracted(tracer, one, two)
    for tensor, sums in ((left, sums_left), (right, sums_right)):
        if len(tracer.layers(tensor)) > 1:  # activations have one layer, weights one per dim
            for ids in sums:
                tracer.space.mark_read(ids, by_weight=True)
    for here, there in ((sums_left, sums_right), (sums_right, sums_left)):
        if here and not there:
            tracer.freeze(here, _CONSTANT)
    rows = [ids[..., :1].expand(outputs.shape) for ids in keeps_left]
    columns = [ids[..., :1, :].expand(outputs.shape) for ids in keeps_right]
    tracer.set_layers(outputs, [*rows, *columns])


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
    if not split_by_variation([ids], -1)[0]:
        return ids[..., 0]
    first = ids.amax(-1)
    tracer.space.tie(first[..., None], ids)
    return first

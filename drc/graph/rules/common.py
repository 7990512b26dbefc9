"""Helpers that several rules share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from drc.graph.ids import NO_CHANNEL, IdMaps
from drc.graph.tracer import Tracer


def varies(ids: Tensor, dim: int) -> bool:
    """Whether the ids of a map change along `dim`."""
    return ids.shape[dim] > 1


def along(tracer: Tracer, ids: Tensor, dim: int, size: int) -> Tensor:
    """Reduce a map to one id per index of `dim`, `(size,)`, tying ids that share an index.

    An index whose elements belong to no channel gives NO_CHANNEL.
    """
    rows = ids.movedim(dim, 0).reshape(ids.shape[dim], -1)
    first = rows[:, 0]
    if rows.shape[1] > 1:
        first = rows.amax(1)
        tracer.space.tie(first[:, None], rows)
    return first.expand(size)


def as_map(ids: Tensor, dim: int, rank: int) -> Tensor:
    """One id per index of `dim` as an id map of a tensor of the given rank."""
    shape = [1] * rank
    shape[dim] = -1
    return ids.reshape(shape)


def tie_to(tracer: Tracer, ids: Tensor, tensors: Iterable[Any]) -> None:
    """Tie the ids of some tensors, such as a bias, to those that they go with."""
    for tensor in tensors:
        for own in tracer.maps_of(tensor):
            tracer.space.tie(ids, own)


def first_output(outputs: Any) -> Any:
    """The tensor among what an op returns that is its result."""
    return outputs[0] if isinstance(outputs, (tuple, list)) else outputs


def split_by_variation(maps: IdMaps, *dims: int) -> tuple[IdMaps, IdMaps]:
    """The maps whose ids differ along one of `dims`, and the others."""
    inside: IdMaps = []
    outside: IdMaps = []
    for ids in maps:
        (inside if any(varies(ids, dim) for dim in dims) else outside).append(ids)
    return inside, outside


def merge(first: Tensor, second: Tensor) -> Tensor:
    """One id map for two tied ones of equal rank, in the form that stores less."""
    if second.numel() < first.numel():
        first, second = second, first
    if bool((first == NO_CHANNEL).any()):
        return torch.where(first == NO_CHANNEL, second, first)
    return first


def bind(func: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """Arguments by the names of the op's schema, defaults included."""
    arguments = func._schema.arguments
    defaults = {a.name: a.default_value for a in arguments if a.has_default_value()}
    names = [argument.name for argument in arguments]
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


def op_name(func: Any) -> str:
    """The op's name as reasons give it, such as `aten.sort`."""
    return func._schema.name.replace("::", ".")

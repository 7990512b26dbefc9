"""Helpers that several rules share."""

from __future__ import annotations

import torch
from torch import Tensor

from drc.graph.ids import NO_CHANNEL, varies
from drc.graph.tracer import Layers, Tracer


def along(tracer: Tracer, ids: Tensor, dim: int) -> Tensor:
    """Reduce a layer to one id per index of `dim`, `(size,)`, tying ids that share an index.

    An index whose elements belong to no channel gives NO_CHANNEL.
    """
    for other in range(ids.ndim):
        if other != dim % ids.ndim and not varies(ids, other):
            ids = ids.narrow(other, 0, 1)
    rows = ids.movedim(dim, 0).reshape(ids.shape[dim], -1)
    if rows.shape[1] == 1:
        return rows[:, 0]
    first = rows.amax(1)
    tracer.space.tie(first[:, None], rows)
    return first


def place(ids: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """Spread one id per index of `dim` over a tensor of `shape`, without copying."""
    view = [1] * len(shape)
    view[dim] = -1
    return ids.view(view).expand(shape)


def split_by_variation(layers: Layers, dim: int) -> tuple[Layers, Layers]:
    """The layers whose ids differ along `dim`, and the others."""
    inside = [ids for ids in layers if varies(ids, dim)]
    outside = [ids for ids in layers if not varies(ids, dim)]
    return inside, outside


def merge(first: Tensor, second: Tensor) -> Tensor:
    """One layer for two tied ones of equal shape, in the form that stores less."""
    if _stored(second) < _stored(first):
        first, second = second, first
    if bool((first == NO_CHANNEL).any()):
        return torch.where(first == NO_CHANNEL, second, first)
    return first


def _stored(ids: Tensor) -> int:
    size = 1
    for length, stride in zip(ids.shape, ids.stride(), strict=True):
        size *= length if stride else 1
    return size

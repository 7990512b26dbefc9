"""Calls that take a part of a dimension: split, chunk, narrow, slices."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drc.graph.sizes.calls import SizeCall, SizeRule, Sizes, kept_length, lengths
from drc.graph.sizes.ops import Function, Given, SizeOp, has_lengths, register

_END = 2**62


@register
class Split(SizeOp):
    """split and chunk, read as the lengths of the pieces, however they are given."""

    name = "split"
    functions = (
        Tensor.split, torch.split, torch.functional.split, Tensor.split_with_sizes,
        torch.split_with_sizes, Tensor.chunk, torch.chunk,
    )  # fmt: skip

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        named = dict(zip(("tensor", "size", "dim"), args, strict=False))
        for key, value in kwargs.items():
            is_size = key in ("split_size_or_sections", "split_size", "split_sizes", "chunks")
            named["size" if is_size else "dim" if key == "dim" else "tensor"] = value
        tensor, size = named["tensor"], named["size"]
        dim = named.get("dim", 0) % tensor.ndim
        if not isinstance(size, (list, tuple)):
            total = tensor.shape[dim]
            step = -(-total // size) if "chunk" in func.__name__ else size
            size = [min(step, total - start) for start in range(0, total, step)]
        return Given(tensor, tuple(size), dim)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        if kept_length(call.source, call.dim, alive) is None:
            return (None,) * len(call.given)
        ends = np.cumsum((0, *call.given))
        pairs = itertools.pairwise(ends.tolist())
        return tuple(_between(call, start, end, alive) for start, end in pairs)

    def rewritten(self, rule: SizeRule, given: Given) -> tuple | None:
        return rule.new if has_lengths(given.tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        given = self.read(func, args, kwargs)
        assert given is not None and given.tensor is not None and given.dim is not None
        return torch.split_with_sizes(given.tensor, list(sizes), given.dim)


@register
class Narrow(SizeOp):
    """narrow: `given` is start and end."""

    name = "narrow"
    functions = (Tensor.narrow, torch.narrow)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        if len(args) != 4 or not all(isinstance(arg, int) for arg in args[1:]):
            return None
        tensor, dim, start, length = args
        return Given(tensor, (start, start + length), dim % tensor.ndim)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        if kept_length(call.source, call.dim, alive) is None:
            return (None, None)
        return tuple(_between(call, 0, end, alive) for end in call.given)

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(args[0], args[1], sizes[0], sizes[1] - sizes[0])


@register
class Index(SizeOp):
    """`x[:, a:b]`, read and written: the bounds as the code gives them, `_END` for none."""

    name = "index"
    functions = (Tensor.__getitem__, Tensor.__setitem__)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        items, index = self._bounded(args)
        if index is None:
            return None
        start, stop = items[index].start, items[index].stop
        bounds = (start or 0, _END if stop is None else stop)
        return Given(args[0], bounds, _dims_of(items, args[0].ndim)[index])

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        if call.dim is None or kept_length(call.source, call.dim, alive) is None:
            return (None, None)
        length = call.shape[call.dim]
        return tuple(
            None if bound == _END
            else _between(call, 0, bound, alive) if bound >= 0
            else -_between(call, length + bound, length, alive)
            for bound in call.given
        )  # fmt: skip

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        items, index = self._bounded(args)
        start, stop = sizes
        bounds = slice(start, None if stop == _END else stop)
        items = tuple(bounds if i == index else item for i, item in enumerate(items))
        return func(args[0], items, *args[2:])

    def _bounded(self, args: tuple) -> tuple[tuple, int | None]:
        """The indices, and which is the slice with bounds; None unless there is just one."""
        items = args[1] if isinstance(args[1], tuple) else (args[1],)
        if not all(item is None or item is ... or isinstance(item, (slice, int)) for item in items):
            return items, None
        dims = _dims_of(items, args[0].ndim)
        bounded = [
            index
            for index, item in enumerate(items)
            if isinstance(item, slice)
            and item.step in (None, 1)
            and dims[index] < args[0].ndim
            and (item.start not in (None, 0) or item.stop is not None)
        ]
        return items, bounded[0] if len(bounded) == 1 else None


def _between(call: SizeCall, start: int, end: int, alive: np.ndarray) -> int:
    """How many of the channels from `start` to `end` of the call's dimension are left."""
    assert call.dim is not None
    for ids in call.source:
        if ids.shape[call.dim] > 1:
            start, end = max(0, start), min(end, ids.shape[call.dim])
            if end <= start:
                return 0
            part = alive[ids.narrow(call.dim, start, end - start).numpy()]
            return lengths(part)[call.dim] if end - start > 1 else int(part.any())
    return 0


def _dims_of(items: tuple, rank: int) -> list[int]:
    """The dimension that each index applies to; `None` and `...` get that of their successor."""
    used = sum(item is not None and item is not ... for item in items)
    dims, dim = [], 0
    for item in items:
        dims.append(dim)
        if item is ...:
            dim += rank - used
        elif item is not None:
            dim += 1
    return dims

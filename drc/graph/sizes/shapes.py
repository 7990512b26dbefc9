"""Calls that give or read whole shapes: view, expand, new tensors, unflatten, `shape`."""

from __future__ import annotations

import itertools
import math
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drc.graph.sizes.calls import SizeCall, SizeRule, Sizes, kept_length
from drc.graph.sizes.ops import (
    Function,
    Given,
    SizeOp,
    all_sizes,
    flat,
    frames,
    has_lengths,
    register,
    with_new,
)

_BETWEEN = ("drc.graph.", "torch.", "einops.")


class WholeShape(SizeOp):
    """One size for each dimension of the result."""

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        sizes = flat(args[1:] or tuple(kwargs[k] for k in ("shape", "size") if k in kwargs))
        return Given(args[0], sizes) if all_sizes(sizes) else None

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        found = [kept_length(call.targets[0], dim, alive) for dim in range(len(call.given))]
        pairs = zip(call.given, found, strict=True)
        return tuple(None if given == -1 else length for given, length in pairs)

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(args[0], sizes)


@register
class View(WholeShape):
    """view and reshape. One whose sizes multiply to the tensor's elements is right as it is."""

    name = "view"
    functions = (Tensor.view, Tensor.reshape, torch.reshape)

    def rewritten(self, rule: SizeRule, given: Given) -> tuple | None:
        tensor, sizes, _ = given
        if tensor is None or len(sizes) != len(rule.old):
            return None
        if -1 not in sizes and _possible(tensor, sizes):
            return None
        new = with_new(rule, sizes) if has_lengths(tensor, rule) else _in_proportion(rule, sizes)
        return new if new is not None and _possible(tensor, new) else None


@register
class Expand(WholeShape):
    name = "expand"
    functions = (Tensor.expand, torch.broadcast_to, Tensor.broadcast_to)


@register
class New(WholeShape):
    """Tensors made in a given size, such as `torch.zeros(b, 64, h, w)`."""

    name = "new"
    functions = (
        torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn, torch.full,
        Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, Tensor.new_full,
    )  # fmt: skip

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        own = flat(args[self._skip(args) :] or (kwargs.get("size", ()),))
        if func in (torch.full, Tensor.new_full):
            own = flat(args[self._skip(args) :][:1])
        return Given(None, own) if own and all_sizes(own) else None

    def rewritten(self, rule: SizeRule, given: Given) -> tuple | None:
        """The rule's sizes where all that it knows are given."""
        if len(given.sizes) != len(rule.old):
            return None
        triples = list(zip(given.sizes, rule.old, rule.new, strict=True))
        if any(new is not None and size != old for size, old, new in triples):
            return None
        return tuple(size if new is None else new for size, _, new in triples)

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        first = args[: self._skip(args)]
        value = args[-1:] if func in (torch.full, Tensor.new_full) and len(args) > 1 else ()
        rest = {k: v for k, v in kwargs.items() if k != "size"}
        return func(*first, sizes, *value, **rest)

    def _skip(self, args: tuple) -> int:
        return int(bool(args) and isinstance(args[0], Tensor))


@register
class Unflatten(SizeOp):
    """The lengths that one dimension is split into."""

    name = "unflatten"
    functions = (Tensor.unflatten, torch.unflatten)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        if len(args) != 3:
            return None
        return Given(args[0], tuple(args[2]), args[1] % args[0].ndim)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        first = call.dim or 0
        dims = range(first, first + len(call.given))
        return tuple(kept_length(call.targets[0], dim, alive) for dim in dims)

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(args[0], args[1], sizes)


@register
class ShapeRead(SizeOp):
    """`shape`, `size()` and `size(dim)`; the sizes of the call are what the code sees.

    `q.shape[-1] ** -0.5` scales by a width that a cut changes, `assert c == self.dim` refuses it,
    and einops checks the lengths it is given against it. Under a rule a module sees dense lengths;
    what it makes of them is then rewritten as any spelled-out size is.
    """

    name = "shape"
    functions = (Tensor.shape.__get__, Tensor.size)  # type: ignore[attr-defined]
    spare = True

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        tensor = args[0]
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        if dim is None:
            return Given(tensor, tuple(tensor.shape))
        return Given(tensor, (tensor.shape[dim],), dim % tensor.ndim)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        dims = range(len(call.shape)) if call.dim is None else (call.dim,)
        found = [kept_length(call.source, dim, alive) for dim in dims]
        pairs = zip(call.given, found, strict=True)
        return tuple(None if length is None else dense for dense, length in pairs)

    def rewritten(self, rule: SizeRule, given: Given) -> tuple | None:
        if len(given.sizes) != len(rule.new) or not has_lengths(given.tensor, rule):
            return None
        if not _same(rule.site, self.site()):
            return None
        cut = dict(rule.length)
        first = rule.dim or 0
        triples = ((size, cut.get(first + i), rule.new[i]) for i, size in enumerate(given.sizes))
        return tuple(
            # Heads may be merged into the batch, so lengths are multiples.
            size if length is None or dense is None else size // length * dense
            for size, length, dense in triples
        )

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return sizes[0] if len(args) > 1 or kwargs else torch.Size(sizes)

    def site(self) -> str:
        for frame in frames():
            if not frame.f_globals.get("__name__", "").startswith(_BETWEEN):
                return _position(frame)
        return ""


def _position(frame: FrameType) -> str:
    """Function, line from its first, and column, which Python knows from 3.11 on."""
    code = frame.f_code
    line, column = frame.f_lineno, None
    if hasattr(code, "co_positions"):
        found = next(itertools.islice(code.co_positions(), frame.f_lasti // 2, None))
        line, column = found[0] or line, found[2]
    return f"{code.co_name}:{line - code.co_firstlineno}:{'' if column is None else column}"


def _same(first: str, second: str) -> bool:
    """Whether two positions agree in all that both say."""
    pairs = zip(first.split(":"), second.split(":"), strict=False)
    return all(not a or not b or a == b for a, b in pairs)


def _possible(tensor: Tensor, sizes: tuple) -> bool:
    known = math.prod([size for size in sizes if size != -1])  # a list: dynamo traces no generator
    if -1 in sizes:
        return bool(known) and tensor.numel() % known == 0
    return known == tensor.numel()


def _in_proportion(rule: SizeRule, given: tuple) -> tuple | None:
    """Sizes that hold a batch or pixels besides channels, scaled by what the channels lost."""
    if -1 in given:
        return None
    sizes = []
    for size, old, new in zip(given, rule.old, rule.new, strict=True):
        if new is not None:
            if size * new % old:
                return None
            size = size * new // old
        sizes.append(size)
    return tuple(sizes)

"""The functions that take sizes: how to read what a call was given and how to write it anew.

One class per kind of call, registered in `OPS`; here those that give whole shapes. A call is read
as the tensor it works on, the dimension concerned (-1 for none) and the sizes given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from drc.graph.sizes.calls import SizeCall, SizeRule

Sizes = tuple[int | None, ...]
Given = tuple[Tensor | None, int, tuple]
Function = Callable[..., Any]


def kept_length(maps: Sequence[Tensor], dim: int, alive: np.ndarray) -> int | None:
    """Length of `dim` that a cut leaves; None where no id map varies along it."""
    for ids in maps:
        if ids.ndim > dim and ids.shape[dim] > 1:
            return lengths(alive[ids.numpy()])[dim]
    return None


def lengths(mask: np.ndarray) -> list[int]:
    """The shape of what is left. Rows may have lost different channels, but equally many."""
    dims = [dim for dim, size in enumerate(mask.shape) if size > 1]
    left = [1] * mask.ndim
    for dim in dims:
        left[dim] = int(mask.any(tuple(d for d in range(mask.ndim) if d != dim)).sum())
    others = math.prod(left[dim] for dim in dims[:-1])
    if others * left[dims[-1]] != mask.sum():
        left[dims[-1]] = int(mask.sum()) // max(1, others)
    return left


OPS: dict[str, SizeOp] = {}
"""By the kind of call, as rules name it."""

BY_FUNCTION: dict[Function, SizeOp] = {}


def register(cls: type[SizeOp]) -> type[SizeOp]:
    """Register the decorated kind of call."""
    op = cls()
    if op.name in OPS:
        raise ValueError(f"a kind of call named {op.name!r} is already registered")
    OPS[op.name] = op
    BY_FUNCTION.update(dict.fromkeys(op.functions, op))
    return cls


class SizeOp:
    """What all kinds have in common: one size for each dimension of the result."""

    name: str
    functions: tuple[Function, ...]

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        """The tensor, the dimension and the sizes of a call; None for a call without sizes."""
        sizes = flat(args[1:] or tuple(kwargs[k] for k in ("shape", "size") if k in kwargs))
        return (args[0], -1, sizes) if all_sizes(sizes) else None

    spare = False
    """Whether such calls are left alone as long as cuts hold without."""

    def site(self) -> str:
        """Where the call that is being made stands in the code; empty where it does not matter."""
        return ""

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        """The sizes of the call in the network that keeps the ids `alive`; None: as given."""
        found = [kept_length(call.targets[0], dim, alive) for dim in range(len(call.given))]
        pairs = zip(call.given, found, strict=True)
        return tuple(None if given == -1 else length for given, length in pairs)

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        """The sizes that `rule` makes of a call's, or None where the rule is not about it."""
        if tensor is None or len(given) != len(rule.old) or not has_lengths(tensor, rule):
            return None
        return with_new(rule, given)

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        """Make the call with other sizes."""
        return func(args[0], sizes)


@register
class View(SizeOp):
    """view and reshape. One whose sizes multiply to the tensor's elements is right as it is."""

    name = "view"
    functions = (Tensor.view, Tensor.reshape, torch.reshape)

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        if tensor is None or len(given) != len(rule.old):
            return None
        if -1 not in given and _possible(tensor, given):
            return None
        new = with_new(rule, given) if has_lengths(tensor, rule) else _in_proportion(rule, given)
        return new if new is not None and _possible(tensor, new) else None


@register
class Expand(SizeOp):
    name = "expand"
    functions = (Tensor.expand, torch.broadcast_to, Tensor.broadcast_to)


@register
class New(SizeOp):
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
        return (None, -1, own) if own and all_sizes(own) else None

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        return _replaced(rule, given)

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
        return args[0], args[1] % args[0].ndim, tuple(args[2])

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        places = range(call.dim, call.dim + len(call.given))
        return tuple(kept_length(call.targets[0], place, alive) for place in places)

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(args[0], args[1], sizes)


def flat(sizes: tuple) -> tuple:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def all_sizes(sizes: tuple) -> bool:
    return all(
        isinstance(size, (int, torch.SymInt))
        or (isinstance(size, Tensor) and size.ndim == 0 and torch.jit.is_tracing())
        for size in sizes
    )


def _possible(tensor: Tensor, sizes: tuple) -> bool:
    known = math.prod([size for size in sizes if size != -1])  # a list: dynamo traces no generator
    if -1 in sizes:
        return bool(known) and tensor.numel() % known == 0
    return known == tensor.numel()


def has_lengths(tensor: Tensor, rule: SizeRule) -> bool:
    """Whether the input is as wide as the rule says. Heads may be merged into the batch."""
    return all(
        dim < tensor.ndim
        and (tensor.shape[dim] == size or (dim == 0 and tensor.shape[0] % size == 0))
        for dim, size in rule.length
    )


def _replaced(rule: SizeRule, given: tuple) -> tuple | None:
    """The rule's sizes where all that it knows are given; None otherwise."""
    if len(given) != len(rule.old):
        return None
    triples = list(zip(given, rule.old, rule.new, strict=True))
    if any(new is not None and size != old for size, old, new in triples):
        return None
    return tuple(size if new is None else new for size, _, new in triples)


def with_new(rule: SizeRule, given: tuple) -> tuple:
    """The rule's sizes in place of the given ones, which may be read off any other tensor.

    The first size may hold a batch besides channels; it changes in proportion.
    """
    sizes = []
    for place, (size, old, new) in enumerate(zip(given, rule.old, rule.new, strict=True)):
        if new is None or size == -1:
            sizes.append(size)
        elif place == 0 and old and size % old == 0:
            sizes.append(size // old * new)
        else:
            sizes.append(new)
    return tuple(sizes)


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

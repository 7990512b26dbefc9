"""The functions that take sizes: how to read what a call was given and how to write it anew.

One class per kind of call, one instance of each in `OPS`. A call is read as the tensor it works
on, the dimension concerned (-1 for none) and the sizes given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from drc.graph.attention import narrow_attention

if TYPE_CHECKING:
    from drc.graph.sizes import SizeCall, SizeRule

Sizes = tuple[int | None, ...]
Given = tuple[Tensor | None, int, tuple]
Function = Callable[..., Any]

_END = 2**62


def kept_length(layers: Sequence[Tensor], dim: int, alive: np.ndarray) -> int | None:
    """Length of `dim` that a cut leaves; None where no layer varies along it."""
    for ids in layers:
        if ids.ndim > dim and ids.shape[dim] > 1:
            return _lengths(alive[ids.numpy()])[dim]
    return None


def _lengths(mask: np.ndarray) -> list[int]:
    """The shape of what is left. Rows may have lost different channels, but equally many."""
    dims = [dim for dim, size in enumerate(mask.shape) if size > 1]
    lengths = [1] * mask.ndim
    for dim in dims:
        lengths[dim] = int(mask.any(tuple(d for d in range(mask.ndim) if d != dim)).sum())
    others = math.prod(lengths[dim] for dim in dims[:-1])
    if others * lengths[dims[-1]] != mask.sum():
        lengths[dims[-1]] = int(mask.sum()) // max(1, others)
    return lengths


class SizeOp:
    """What all kinds have in common; this one is view and reshape, with one size a dimension."""

    name = "view"
    functions: tuple[Function, ...] = (Tensor.view, Tensor.reshape, torch.reshape)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        """The tensor, the dimension and the sizes of a call; None for a call without sizes."""
        sizes = _flat(args[1:] or tuple(kwargs[k] for k in ("shape", "size") if k in kwargs))
        return (args[0], -1, sizes) if _all_sizes(sizes) else None

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        """The sizes of the call in the network that keeps the ids `alive`; None: as given."""
        found = [kept_length(call.targets[0], dim, alive) for dim in range(len(call.given))]
        pairs = zip(call.given, found, strict=True)
        return tuple(None if given == -1 else length for given, length in pairs)

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        """The sizes that `rule` makes of a call's, or None where the rule is not about it.

        A view whose sizes multiply to the tensor's elements is right as it stands.
        """
        if tensor is None or len(given) != len(rule.old):
            return None
        if -1 not in given and _possible(tensor, given):
            return None
        new = _with_new(rule, given) if _has_lengths(tensor, rule) else _in_proportion(rule, given)
        return new if new is not None and _possible(tensor, new) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        """Make the call with other sizes."""
        return func(args[0], sizes)


class Expand(SizeOp):
    name = "expand"
    functions = (Tensor.expand, torch.broadcast_to, Tensor.broadcast_to)

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        if tensor is None or len(given) != len(rule.old) or not _has_lengths(tensor, rule):
            return None
        return _with_new(rule, given)


class New(SizeOp):
    """Tensors made in a given size, such as `torch.zeros(b, 64, h, w)`."""

    name = "new"
    functions = (
        torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn, torch.full,
        Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, Tensor.new_full,
    )  # fmt: skip

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        own = _flat(args[self._skip(args) :] or (kwargs.get("size", ()),))
        if func in (torch.full, Tensor.new_full):
            own = _flat(args[self._skip(args) :][:1])
        return (None, -1, own) if own and _all_sizes(own) else None

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        return _replaced(rule, given)

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        first = args[: self._skip(args)]
        value = args[-1:] if func in (torch.full, Tensor.new_full) and len(args) > 1 else ()
        rest = {k: v for k, v in kwargs.items() if k != "size"}
        return func(*first, sizes, *value, **rest)

    def _skip(self, args: tuple) -> int:
        return int(bool(args) and isinstance(args[0], Tensor))


class Split(SizeOp):
    """split and chunk. `given` is the list of lengths, or the one length or count."""

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
        return tensor, dim, tuple(size)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        if kept_length(call.source, call.dim, alive) is None:
            return (None,) * len(call.given)
        ends = np.cumsum((0, *call.given))
        pairs = itertools.pairwise(ends.tolist())
        return tuple(_between(call, start, end, alive) for start, end in pairs)

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        return rule.new if tensor is not None and _has_lengths(tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        given = self.read(func, args, kwargs)
        assert given is not None and given[0] is not None
        return torch.split_with_sizes(given[0], list(sizes), given[1])


class Narrow(SizeOp):
    """narrow: `given` is start and end."""

    name = "narrow"
    functions = (Tensor.narrow, torch.narrow)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        if len(args) != 4 or not all(isinstance(arg, int) for arg in args[1:]):
            return None
        tensor, dim, start, length = args
        return tensor, dim % tensor.ndim, (start, start + length)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        if kept_length(call.source, call.dim, alive) is None:
            return (None, None)
        return tuple(_between(call, 0, end, alive) for end in call.given)

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        return _with_new(rule, given) if tensor is not None and _has_lengths(tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(args[0], args[1], sizes[0], sizes[1] - sizes[0])


class Index(SizeOp):
    """`x[:, a:b]`, read and written: the bounds as the code gives them, `_END` for none."""

    name = "index"
    functions = (Tensor.__getitem__, Tensor.__setitem__)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        place = self._place(args)
        if place is None:
            return None
        items = args[1] if isinstance(args[1], tuple) else (args[1],)
        dim = _dims_of(items, args[0].ndim)[place]
        start, stop = items[place].start, items[place].stop
        return args[0], dim, (start or 0, _END if stop is None else stop)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        if kept_length(call.source, call.dim, alive) is None:
            return (None, None)
        length = call.shape[call.dim]
        return tuple(
            None if bound == _END
            else _between(call, 0, bound, alive) if bound >= 0
            else -_between(call, length + bound, length, alive)
            for bound in call.given
        )  # fmt: skip

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        return _with_new(rule, given) if tensor is not None and _has_lengths(tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        place = self._place(args)
        assert place is not None
        items = list(args[1]) if isinstance(args[1], tuple) else [args[1]]
        start, stop = sizes
        items[place] = slice(start, None if stop == _END else stop)
        return func(args[0], tuple(items), *args[2:])

    def _place(self, args: tuple) -> int | None:
        """Position of the slice with bounds among the indices; None unless there is just one."""
        items = args[1] if isinstance(args[1], tuple) else (args[1],)
        if not all(item is None or item is ... or isinstance(item, (slice, int)) for item in items):
            return None
        dims = _dims_of(items, args[0].ndim)
        bounded = [
            place
            for place, item in enumerate(items)
            if isinstance(item, slice)
            and item.step in (None, 1)
            and dims[place] < args[0].ndim
            and (item.start not in (None, 0) or item.stop is not None)
        ]
        return bounded[0] if len(bounded) == 1 else None


class Groups(SizeOp):
    """How many groups a convolution has, where whole groups go."""

    name = "groups"
    functions = (F.conv1d, F.conv2d, F.conv3d)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
        tensor = args[0] if args else kwargs.get("input")
        if tensor is None or groups == 1:
            return None
        return tensor, tensor.ndim - 1 - _SPATIAL[func], (groups,)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        groups, channels = call.given[0], call.shape[call.dim]
        for ids in call.source:
            if ids.shape[call.dim] > 1 and groups >= channels // groups:
                left = alive[ids.movedim(call.dim, 0).reshape(groups, -1).numpy()]
                return (int(left.any(1).sum()),)
        return (None,)

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        return _with_new(rule, given) if tensor is not None and _has_lengths(tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(*args[:6], **{**kwargs, "groups": sizes[0]})


class Normalised(SizeOp):
    """The lengths that a layer norm normalises over."""

    name = "layer_norm"
    functions = (F.layer_norm, F.rms_norm)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        shape = args[1] if len(args) > 1 else kwargs["normalized_shape"]
        return args[0], -1, tuple(shape)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        first = len(call.shape) - len(call.given)
        return tuple(
            kept_length(call.source, first + place, alive) for place in range(len(call.given))
        )

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        return _with_new(rule, given) if tensor is not None and _has_lengths(tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        rest = {k: v for k, v in kwargs.items() if k != "normalized_shape"}
        return func(args[0], sizes, *args[2:], **rest)


class AttentionScale(SizeOp):
    """torch divides by the root of the width it sees; what was trained was the dense one's."""

    name = "attention"
    functions = (F.scaled_dot_product_attention,)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        query = args[0] if args else kwargs["query"]
        return (query, query.ndim - 1, ()) if kwargs.get("scale") is None else None

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        dense = call.shape[call.dim]
        return (dense,) if kept_length(call.source, call.dim, alive) not in (None, dense) else ()

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        return rule.new if tensor is not None and _has_lengths(tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(*args, **{**kwargs, "scale": sizes[0] ** -0.5})


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

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        if tensor is None or len(given) != len(rule.old) or not _has_lengths(tensor, rule):
            return None
        return _with_new(rule, given)

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return func(args[0], args[1], sizes)


class MultiHead(SizeOp):
    """torch's attention modules; `given` is the width of all heads together."""

    name = "heads"
    functions = (F.multi_head_attention_forward,)

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        packed = len(args) > 5 and args[5] is not None
        return (args[5], 0, (args[3],)) if packed else None

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        length = kept_length(call.source, 0, alive)
        return (None,) if length is None else (length // 3,)

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        # torch's function checks the stream against the heads, so it never does after a cut.
        return (-1,) if tensor is not None and _has_lengths(tensor, rule) else None

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        query, key, value, dense, heads, weight, bias, *_, dropout, out, out_bias = args[:13]
        return narrow_attention(
            query, key, value, dense, heads, weight, bias, out, out_bias,
            dropout=dropout if kwargs.get("training", True) else 0.0,
            padding=kwargs.get("key_padding_mask"),
            mask=kwargs.get("attn_mask"),
            need_weights=kwargs.get("need_weights", True),
            average=kwargs.get("average_attn_weights", True),
        )  # fmt: skip


_SPATIAL: dict[Function, int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}

OPS: dict[str, SizeOp] = {
    op.name: op
    for op in (
        SizeOp(), Expand(), New(), Split(), Narrow(), Index(), Groups(), Normalised(),
        AttentionScale(), Unflatten(), MultiHead(),
    )
}  # fmt: skip

BY_FUNCTION: dict[Function, SizeOp] = {f: op for op in OPS.values() for f in op.functions}


def _between(call: SizeCall, start: int, end: int, alive: np.ndarray) -> int:
    """How many of the channels from `start` to `end` of the call's dimension are left."""
    for ids in call.source:
        if ids.shape[call.dim] > 1:
            start, end = max(0, start), min(end, ids.shape[call.dim])
            if end <= start:
                return 0
            part = alive[ids.narrow(call.dim, start, end - start).numpy()]
            return _lengths(part)[call.dim] if end - start > 1 else int(part.any())
    return 0


def _flat(sizes: tuple) -> tuple:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def _all_sizes(sizes: tuple) -> bool:
    return all(isinstance(size, (int, torch.SymInt)) for size in sizes)


def _possible(tensor: Tensor, sizes: tuple) -> bool:
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        return bool(known) and tensor.numel() % known == 0
    return known == tensor.numel()


def _has_lengths(tensor: Tensor, rule: SizeRule) -> bool:
    return all(dim < tensor.ndim and tensor.shape[dim] == size for dim, size in rule.length)


def _replaced(rule: SizeRule, given: tuple) -> tuple | None:
    """The rule's sizes where all that it knows are given; None otherwise."""
    if len(given) != len(rule.old):
        return None
    triples = list(zip(given, rule.old, rule.new, strict=True))
    if any(new is not None and size != old for size, old, new in triples):
        return None
    return tuple(size if new is None else new for size, _, new in triples)


def _with_new(rule: SizeRule, given: tuple) -> tuple | None:
    """The rule's sizes in place of the given ones, which may be read off any other tensor."""
    pairs = zip(given, rule.new, strict=True)
    return tuple(size if new is None or size == -1 else new for size, new in pairs)


def _in_proportion(rule: SizeRule, given: tuple) -> tuple | None:
    """Sizes that hold a batch or pixels besides channels, scaled by what the channels lost."""
    if -1 in given:
        return None
    sizes = []
    for size, old, new in zip(given, rule.old, rule.new, strict=True):
        if old is not None and new is not None:
            if size * new % old:
                return None
            size = size * new // old
        sizes.append(size)
    return tuple(sizes)


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

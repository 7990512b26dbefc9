"""The functions that take sizes: how to read what a call was given and how to write it anew.

One class per kind of call, registered in `OPS`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from drc.graph.sizes.calls import SizeCall, SizeRule, Sizes

Function = Callable[..., Any]


class Given(NamedTuple):
    """What a call works with.

    Attributes:
        tensor: the one it works on; None where it makes one.
        sizes: as given.
        dim: the dimension that they are about, where it is one.
    """

    tensor: Tensor | None
    sizes: tuple
    dim: int | None = None


OPS: dict[str, SizeOp] = {}
"""By the kind of call, as rules name it."""

BY_FUNCTION: dict[Function, SizeOp] = {}


def register(cls: type[SizeOp]) -> type[SizeOp]:
    """Register the decorated kind of call.

    Raises:
        ValueError: its name, or one of its functions, has an op already.
    """
    op = cls()
    if op.name in OPS:
        raise ValueError(f"a size op named {op.name!r} is registered already; choose another name")
    taken = [BY_FUNCTION[function].name for function in op.functions if function in BY_FUNCTION]
    if taken:
        raise ValueError(f"a function of {op.name!r} is read by the size op {taken[0]!r} already")
    OPS[op.name] = op
    BY_FUNCTION.update(dict.fromkeys(op.functions, op))
    return cls


class SizeOp(ABC):
    """A kind of call.

    Attributes:
        name: of the kind, unique.
        functions: that are called.
        spare: whether such calls are left alone as long as cuts hold without.
    """

    name: str
    functions: tuple[Function, ...]
    spare = False

    @abstractmethod
    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        """What a call was given; None for a call without sizes."""

    @abstractmethod
    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        """The sizes of the call in the network that keeps the ids `alive`; None: as given."""

    @abstractmethod
    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        """Make the call with other sizes."""

    def rewritten(self, rule: SizeRule, given: Given) -> tuple | None:
        """The sizes that `rule` makes of a call's, or None where the rule is not about it."""
        if len(given.sizes) != len(rule.old) or not has_lengths(given.tensor, rule):
            return None
        return with_new(rule, given.sizes)

    def site(self) -> str:
        """Where the call that is being made stands in the code; empty where it does not matter."""
        return ""


def rules_at(calls: Iterable[SizeCall], alive: np.ndarray) -> tuple[SizeRule, ...]:
    """The rules of all calls at a cut that leaves the ids `alive`, `(ids,)`, each once.

    A size that the cut leaves as it was is in a rule too: the code may have read it off another
    tensor, which was cut. A call without channels has no rule.
    """
    if alive.all():
        return ()
    found: dict[SizeRule, None] = {}
    for call in calls:
        new = (None,) if call.spare else OPS[call.op].needed(call, alive)
        if any(size is not None for size in new):
            found[call.rule(new, alive)] = None
    return tuple(found)


def read_rule(data: dict[str, Any]) -> SizeRule:
    """A rule of a file. Raises ValueError for one of a kind that is not registered."""
    rule = SizeRule.from_json(data)
    if rule.op not in OPS:
        raise ValueError(f"it rewrites sizes of {rule.op!r}, which this drc does not know")
    return rule


def frames() -> Iterator[FrameType]:
    """The Python frames around the caller, from its own outwards.

    Two facts of a call stand nowhere else: which of the reads of a shape in the source it is, for
    lengths tell no read apart; and whether torch's checkpoint makes it, to make it once more later.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def flat(sizes: tuple) -> tuple:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def all_sizes(sizes: tuple) -> bool:
    return all(
        isinstance(size, (int, torch.SymInt))
        or (isinstance(size, Tensor) and size.ndim == 0 and torch.jit.is_tracing())
        for size in sizes
    )


def has_lengths(tensor: Tensor | None, rule: SizeRule) -> bool:
    """Whether the input is as wide as the rule says. Heads may be merged into the batch."""
    return tensor is not None and all(
        dim < tensor.ndim
        and (tensor.shape[dim] == size or (dim == 0 and tensor.shape[0] % size == 0))
        for dim, size in rule.length
    )


def with_new(rule: SizeRule, given: tuple) -> tuple:
    """The rule's sizes in place of the given ones, which may be read off any other tensor.

    The first size may hold a batch besides channels; it changes in proportion.
    """
    sizes = []
    for index, (size, old, new) in enumerate(zip(given, rule.old, rule.new, strict=True)):
        if new is None or size == -1:
            sizes.append(size)
        elif index == 0 and old and size % old == 0:
            sizes.append(size // old * new)
        else:
            sizes.append(new)
    return tuple(sizes)

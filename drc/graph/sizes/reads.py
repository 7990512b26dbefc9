"""Reads of a tensor's shape, by code that should go on seeing the dense network's.

`q.shape[-1] ** -0.5` scales by a width that a cut changes, `assert c == self.dim` refuses it, and
einops checks the lengths it is given against it. Where told so, a module sees dense lengths; what
it makes of them is then rewritten as any spelled-out size is.
"""

from __future__ import annotations

import itertools
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from drc.graph.sizes.ops import Function, Given, SizeOp, Sizes, has_lengths, kept_length, register

if TYPE_CHECKING:
    from drc.graph.sizes.calls import SizeCall, SizeRule

_BETWEEN = ("drc.graph.", "torch.", "einops.")


@register
class ShapeRead(SizeOp):
    """`shape`, `size()` and `size(dim)`; the sizes of the call are what the code is told."""

    name = "shape"
    functions = (Tensor.shape.__get__, Tensor.size)  # type: ignore[attr-defined]

    def read(self, func: Function, args: tuple, kwargs: dict) -> Given | None:
        tensor = args[0]
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        if dim is None:
            return tensor, -1, tuple(tensor.shape)
        return tensor, dim % tensor.ndim, (tensor.shape[dim],)

    spare = True

    def site(self) -> str:
        # Tensors without channels have lengths that may be any, so lengths tell no read apart.
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
            frame = frame.f_back
        return "" if frame is None else _position(frame)

    def needed(self, call: SizeCall, alive: np.ndarray) -> Sizes:
        dims = range(len(call.shape)) if call.dim < 0 else (call.dim,)
        found = [kept_length(call.source, dim, alive) for dim in dims]
        pairs = zip(call.given, found, strict=True)
        return tuple(None if length is None else dense for dense, length in pairs)

    def rewritten(self, rule: SizeRule, tensor: Tensor | None, given: tuple) -> tuple | None:
        if tensor is None or len(given) != len(rule.new) or not has_lengths(tensor, rule):
            return None
        if not _same(rule.site, self.site()):
            return None
        cut = dict(rule.length)
        first = max(rule.dim, 0)
        triples = ((size, cut.get(first + i), rule.new[i]) for i, size in enumerate(given))
        return tuple(
            # Heads may be merged into the batch, so lengths are multiples.
            size if length is None or dense is None else size // length * dense
            for size, length, dense in triples
        )

    def write(self, func: Function, args: tuple, kwargs: dict, sizes: tuple) -> Any:
        return sizes[0] if len(args) > 1 or kwargs else torch.Size(sizes)


def _position(frame: FrameType) -> str:
    """Function, line from its first, and column, which Python tells from 3.11 on."""
    code = frame.f_code
    line, column = frame.f_lineno, None
    if hasattr(code, "co_positions"):
        found = next(itertools.islice(code.co_positions(), frame.f_lasti // 2, None))
        line, column = found[0] or line, found[2]
    return f"{code.co_name}:{line - code.co_firstlineno}:{'' if column is None else column}"


def _same(first: str, second: str) -> bool:
    """Whether two positions agree in all that both tell."""
    pairs = zip(first.split(":"), second.split(":"), strict=False)
    return all(not a or not b or a == b for a, b in pairs)

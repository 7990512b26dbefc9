"""Sees the output of a layer being added to another tensor, as at the end of a residual block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_ATTRIBUTE = "drc_output_of"

_ADD = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__}
_SCALE = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.mul_, Tensor.__imul__}
_PASS = {F.dropout, torch.dropout, Tensor.contiguous}


@dataclass(frozen=True)
class Mark:
    """Which layer made a tensor, as the how-manieth, and the number it was multiplied by since."""

    layer: str
    order: int
    factor: float = 1.0


def mark(output: Tensor, made_by: Mark) -> None:
    setattr(output, _ATTRIBUTE, made_by)


class Sums(TorchFunctionMode):
    """Calls `added` before the marked output of a layer is added to a tensor of its shape.

    `added(output, mark, other)` returns what to add in place of `output`. An output counts only
    on its way from the layer to the first sum, through nothing but products with numbers.
    """

    def __init__(self, added: Callable[[Tensor, Mark, Tensor], Tensor]) -> None:
        super().__init__()
        self.added = added

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ADD and len(args) == 2 and not kwargs:
            args = self._sum(*args)
        result = func(*args, **kwargs)
        carried = _carried(func, args)
        if carried is not None and isinstance(result, Tensor):
            mark(result, carried)
        return result

    def _sum(self, first: Any, second: Any) -> tuple[Any, Any]:
        marks = [getattr(x, _ATTRIBUTE, None) for x in (first, second)]
        if not all(isinstance(x, Tensor) for x in (first, second)) or first.shape != second.shape:
            return first, second
        made: list[Mark] = [m for m in marks if m is not None]
        found = max(made, key=lambda m: m.order, default=None)
        if found is None:
            return first, second
        if found == marks[0]:
            return self._told(first, found, second), second
        return first, self._told(second, found, first)

    def _told(self, output: Tensor, found: Mark, other: Tensor) -> Tensor:
        delattr(output, _ATTRIBUTE)
        return self.added(output, found, other)


def _carried(func: Any, args: tuple) -> Mark | None:
    """The mark that a result takes over from the first tensor among the arguments."""
    if func in _PASS:
        return getattr(args[0], _ATTRIBUTE, None)
    if func not in _SCALE or len(args) != 2:
        return None
    tensor, number = args if isinstance(args[0], Tensor) else args[::-1]
    found = getattr(tensor, _ATTRIBUTE, None)
    if found is None or isinstance(number, Tensor) or not number:
        return None
    return replace(found, factor=found.factor * float(number))

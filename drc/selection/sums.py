"""Sees the output of a layer being added to another tensor, as at the end of a residual block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_ATTRIBUTE = "drc_output_of"

_ADD = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__}
_SCALE = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.mul_, Tensor.__imul__}
_PASS = {F.dropout, torch.dropout, Tensor.contiguous}


@dataclass(frozen=True)
class Mark:
    """What made a tensor.

    Attributes:
        layer: the layer whose output it is.
        factor: the number it was multiplied by since.
    """

    layer: str
    factor: float = 1.0


def mark(output: Tensor, made_by: Mark) -> None:
    """Mark a tensor as it is now; a later change in place ends the mark."""
    setattr(output, _ATTRIBUTE, (made_by, output._version))


def _mark_of(value: Any) -> Mark | None:
    made_by, version = getattr(value, _ATTRIBUTE, (None, 0))
    return made_by if made_by is not None and value._version == version else None


class Sums(TorchFunctionMode):
    """Calls `added` before the marked output of a layer is added to a tensor of its shape.

    `added(output, mark, stream)` may change the output in place. `stream` is what makes the sum,
    up to a factor, when it is added to what the layer gave. An output counts only on its way from
    the layer to the first sum, through nothing but products with numbers; once anything else has
    read it, or changed it in place, it does not.
    """

    def __init__(self, added: Callable[[Tensor, Mark, Tensor], None]) -> None:
        super().__init__()
        self.added = added

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ADD and len(args) == 2 and set(kwargs) <= {"alpha"}:
            self._sum(*args, float(kwargs.get("alpha", 1)))
        carried = _carried(func, args)
        result = func(*args, **kwargs)
        if isinstance(result, (Tensor, tuple, list)):  # not so for questions such as its shape
            _forget((args, kwargs))
            if carried is not None and isinstance(result, Tensor):
                mark(result, carried)
        return result

    def _sum(self, first: Any, second: Any, alpha: float) -> None:
        """Tell of `first + alpha * second` where one of them is fresh from its layer."""
        if not isinstance(first, Tensor) or not isinstance(second, Tensor):
            return
        if first.shape != second.shape or not alpha:
            return
        for output, other, scale in ((first, second, 1 / alpha), (second, first, alpha)):
            found = _mark_of(output)
            if found is not None:
                delattr(output, _ATTRIBUTE)
                self.added(output, found, other / (scale * found.factor))
                return


def _forget(arguments: Any) -> None:
    for value in tree_leaves(arguments):
        if isinstance(value, Tensor) and hasattr(value, _ATTRIBUTE):
            delattr(value, _ATTRIBUTE)


def _carried(func: Any, args: tuple) -> Mark | None:
    """The mark that a result takes over from the first tensor among the arguments."""
    if func in _PASS:
        return _mark_of(args[0])
    if func not in _SCALE or len(args) != 2:
        return None
    tensor, number = args if isinstance(args[0], Tensor) else args[::-1]
    found = _mark_of(tensor)
    if found is None or isinstance(number, Tensor) or not number:
        return None
    return Mark(found.layer, found.factor * float(number))

"""What is exported: a network that takes and gives one image in 0..1, in calls exporters know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from drc.exporters.bicubic import enlarge
from drc.networks.copying import copy_of
from drc.networks.traits import Traits, final_output, get_traits, plain_network

INPUT, OUTPUT = "lr", "sr"
"""The names of the exported network's input and output."""


class UnitNetwork(nn.Module):
    """A copy of a network, on the CPU and in eval mode, as users of a file expect one.

    Input: `(1, C, h, w)`, floats in 0..1, whatever the network's own range is. Output:
    `(1, C, h * scale, w * scale)` in 0..1, not clamped; of a pyramid the last image.

    Raises:
        ModelError: not a network that drc works on.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        network = plain_network(model)
        self.traits: Traits = get_traits(network)
        self.network = copy_of(network).cpu()
        self.eval()  # as a whole: exporters put back the mode that they find

    def forward(self, lr: Tensor) -> Tensor:
        value_range = self.traits.value_range
        with OpenSizes():
            if value_range == 1.0:
                return final_output(self.network(lr))
            return final_output(self.network(lr * value_range)) / value_range

    @property
    def name(self) -> str:
        """The registered name, or the class of another network."""
        return self.traits.preset or type(self.network).__name__


class OpenSizes(TorchFunctionMode):
    """Writes, while a network is exported, calls that fix the image's size as calls that do not.

    Elsewhere they stay as they are. `unflatten` is recorded by `torch.jit.trace` with the sizes of
    the example; `interpolate` by a factor makes `torch.export` demand sizes that fit the factor.
    Bicubic enlargement becomes a convolution in traces, as TensorRT reads no ONNX form of it.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.unflatten, torch.unflatten) and torch.jit.is_tracing():
            return _unflatten(*args, **kwargs)
        if func is F.interpolate and _is_exporting():
            kwargs = _with_size(args, kwargs)
        factor = _bicubic_factor(args, kwargs) if func is F.interpolate else None
        if factor is not None and torch.jit.is_tracing():
            return enlarge(args[0], factor)
        return func(*args, **kwargs)


def _unflatten(x: Tensor, dim: int, sizes: Any) -> Tensor:
    dim %= x.ndim
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def _with_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The size that a whole-number factor makes, which is resampled by the same factor."""
    factor = kwargs.get("scale_factor")
    if len(args) != 1 or not isinstance(factor, (int, float)) or factor != int(factor):
        return kwargs
    rest = {name: value for name, value in kwargs.items() if name != "scale_factor"}
    return {**rest, "size": [side * int(factor) for side in args[0].shape[2:]]}


def _bicubic_factor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """The whole number by which a call of `interpolate` enlarges bicubically; None for others."""
    factor = kwargs.get("scale_factor")
    plain = len(args) == 1 and not any(
        kwargs.get(name) for name in ("size", "align_corners", "antialias")
    )
    if not plain or kwargs.get("mode") != "bicubic" or not isinstance(factor, (int, float)):
        return None
    return int(factor) if factor == int(factor) else None


def _is_exporting() -> bool:
    known = getattr(torch.compiler, "is_exporting", None)  # since torch 2.7
    return torch.compiler.is_compiling() if known is None else known()


__all__ = ["INPUT", "OUTPUT", "OpenSizes", "UnitNetwork"]

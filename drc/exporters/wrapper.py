"""What is exported: a network that takes and gives one image in 0..1, in calls exporters know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from drc.networks.copying import copy_of
from drc.networks.traits import Traits, final_output, get_traits, plain_network

INPUT, OUTPUT = "lr", "sr"
"""The names of the exported network's input and output."""

_A = -0.75
"""The coefficient of torch's bicubic kernel, and of ONNX's."""

_REACH = 2
"""An SR pixel depends on LR pixels up to this many away from the one that it lies in."""


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
        if func is not F.interpolate or len(args) != 1:
            return func(*args, **kwargs)
        factor = _whole_factor(kwargs)
        if factor is not None and torch.jit.is_tracing() and _is_plain_bicubic(kwargs):
            return enlarge(args[0], factor)
        if factor is not None and _is_exporting():
            kwargs = {name: value for name, value in kwargs.items() if name != "scale_factor"}
            kwargs["size"] = [side * factor for side in args[0].shape[2:]]
        return F.interpolate(args[0], **kwargs)


def _unflatten(x: Tensor, dim: int, sizes: Any) -> Tensor:
    dim %= x.ndim
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def _whole_factor(kwargs: dict[str, Any]) -> int | None:
    """The whole number by which a call of `interpolate` enlarges; None for others."""
    factor = kwargs.get("scale_factor")
    return int(factor) if isinstance(factor, (int, float)) and factor == int(factor) else None


def _is_plain_bicubic(kwargs: dict[str, Any]) -> bool:
    others = ("size", "align_corners", "antialias")
    return kwargs.get("mode") == "bicubic" and not any(kwargs.get(name) for name in others)


def _is_exporting() -> bool:
    known = getattr(torch.compiler, "is_exporting", None)  # since torch 2.7
    return torch.compiler.is_compiling() if known is None else known()


def enlarge(image: Tensor, factor: int) -> Tensor:
    """`F.interpolate(image, scale_factor=factor, mode="bicubic")`, but for rounding.

    Every SR pixel within an LR pixel has one filter wherever that lies, so that a convolution and
    a pixel shuffle do it.

    Args:
        image: `(N, C, h, w)`, of any range.
        factor: at least 1.

    Returns:
        `(N, C, h * factor, w * factor)`.
    """
    channels = int(image.shape[1])
    line = torch.tensor(_weights(factor), dtype=image.dtype, device=image.device)
    kernels = torch.einsum("pi,qj->pqij", line, line).flatten(0, 1)[:, None]
    made = F.conv2d(_extended(image), kernels.repeat(channels, 1, 1, 1), groups=channels)
    return F.pixel_shuffle(made, factor)


def _extended(image: Tensor) -> Tensor:
    """The image with its edge pixels repeated outwards: padding, which traces as twelve ops."""
    rows = [image[:, :, :1]] * _REACH + [image] + [image[:, :, -1:]] * _REACH
    tall = torch.cat(rows, 2)
    return torch.cat([tall[..., :1]] * _REACH + [tall] + [tall[..., -1:]] * _REACH, 3)


def _weights(factor: int) -> list[list[float]]:
    """Of the `factor` SR pixels in an LR pixel, the weights of the five LR pixels around it."""
    centres = [(number + 0.5) / factor - 0.5 for number in range(factor)]
    return [
        [_kernel(abs(centre - offset)) for offset in range(-_REACH, _REACH + 1)]
        for centre in centres
    ]


def _kernel(distance: float) -> float:
    if distance < 1:
        return (_A + 2) * distance**3 - (_A + 3) * distance**2 + 1
    if distance < 2:
        return _A * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return 0.0

"""Which layers a forward pass runs, on inputs of which size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from drc.core.errors import ModelError
from drc.core.runtime import forward_hooks
from drc.evaluation.inference import borrowed, on_image
from drc.evaluation.latency_table import LayerShape

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


@dataclass(frozen=True)
class LayerCall:
    """One layer, and an input that the forward pass sends through it.

    Attributes:
        weight: name of the parameter that has the shape of its weight.
        shape: all that its time depends on, dense.
        outputs: numbers in its output.
        count: how often it is run so.
    """

    weight: str
    shape: LayerShape
    outputs: int
    count: int

    def resized(self, first: int, second: int) -> LayerShape:
        """Its shape when the weight has these first two dimensions, as surgery leaves it."""
        shape = self.shape
        groups = shape.groups
        if groups > 1 and shape.weight[1] == 1 and groups == shape.channels:  # depthwise
            groups = first * groups // shape.weight[0]
        return replace(shape, weight=(first, second, *shape.weight[2:]), groups=groups)

    def output_share(self, first: int, second: int) -> float:
        """Numbers in the output then, over those of the dense layer."""
        if self.shape.kind == "transposed":
            resized = self.resized(first, second)
            return second * resized.groups / (self.shape.weight[1] * self.shape.groups)
        return first / self.shape.weight[0]


def layer_calls(
    model: nn.Module, lr_size: tuple[int, int], device: torch.device
) -> list[LayerCall]:
    """The convolutions and linear layers that the network runs on one image.

    A layer whose weight is no parameter of its own shape is left out.

    Args:
        model: a network; it stays on its own device and in its own mode.
        lr_size: height and width of the LR image.
        device: where to run it.

    Raises:
        ModelError: the network does not run on such an image.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Layer)}
    found: Counter[tuple[str, LayerShape, int]] = Counter()

    def note(name: str, inputs: tuple[Any, ...], output: Any) -> None:
        weight = _weight_name(name, layers[name])
        if weight is not None and inputs:
            found[weight, _shape(layers[name], inputs[0]), output.numel()] += 1

    def run(lr: Tensor) -> None:
        found.clear()  # an attempt with other channels may have failed half-way
        model(lr)

    try:
        with borrowed(model, device), forward_hooks(layers, note):
            on_image(model, lr_size, device, run)
    except Exception as error:  # a foreign forward raises what it likes
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"cannot time a {lr_size[0]}x{lr_size[1]} LR image: {type(error).__name__}: {reason}"
        ) from error
    return [LayerCall(name, shape, size, n) for (name, shape, size), n in found.items()]


def _weight_name(prefix: str, module: Layer) -> str | None:
    """The parameter behind the weight, which weight norm and its like compute from it."""
    shape = module.weight.shape
    names = (name for name, value in module.named_parameters() if value.shape == shape)
    name = next(names, None)
    return name and f"{prefix}.{name}".lstrip(".")


def _shape(module: Layer, x: Tensor) -> LayerShape:
    weight, bias = tuple(module.weight.shape), module.bias is not None
    if isinstance(module, nn.Linear):
        return LayerShape("linear", weight, (x.numel() // weight[1],), bias=bias)
    image = (x.shape[0] if x.ndim == 4 else 1, *x.shape[-2:])
    transposed = isinstance(module, nn.ConvTranspose2d)
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return LayerShape(
        "transposed" if transposed else "conv",
        weight,
        image,
        module.stride,
        module.padding,
        module.dilation,
        module.output_padding if transposed else (),
        module.groups,
        bias,
        last and not x.is_contiguous(),
    )

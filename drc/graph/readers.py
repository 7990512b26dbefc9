"""Layers as linear maps: what a convolution or linear layer reads at a position of its output.

At each position of the output (a pixel, a token) such a layer computes `W c + b`, where the columns
`c` are the inputs under the kernel. Refits and second-order importance need `c` at some positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.runtime import eval_mode, forward_hooks

LinearMap = nn.Conv2d | nn.Linear


def linear_maps(model: nn.Module) -> dict[str, LinearMap]:
    """The layers that can be treated so, by name: linear ones, and convolutions of one group.

    Layers that share their weight with another are left out.
    """
    found: dict[str, LinearMap] = {
        name: module for name, module in model.named_modules() if _is_plain(module)
    }
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return {name: m for name, m in found.items() if owners.get(id(m.weight), 0) == 1}


def called_once(model: nn.Module, images: Tensor) -> dict[str, LinearMap]:
    """Those of `linear_maps` that a forward pass calls once, as modules, on what images become."""
    layers = linear_maps(model)
    calls = dict.fromkeys(layers, 0)

    def count(name: str, _: tuple[Tensor, ...], output: Tensor) -> None:
        calls[name] += 1 if output.requires_grad else 2

    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with ExitStack() as stack, eval_mode(model), forward_hooks(layers, count):
        for parameter, was in required:
            stack.callback(parameter.requires_grad_, was)
            parameter.requires_grad_(False)
        model(images.clone().requires_grad_().clone())
    return {name: layer for name, layer in layers.items() if calls[name] == 1}


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer computes what its class does, with zeros around the image."""
    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and module.groups == 1
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    )


def positions(output: Tensor, layer: LinearMap, count: int, generator: torch.Generator) -> Tensor:
    """Random positions in an output, `(positions,)` ascending; each at most once.

    Args:
        output: of the layer; a convolution's has to be `(N, C, H, W)`.
        layer: the layer.
        count: how many, at most.
        generator: of the CPU.
    """
    width = output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1]
    total = output.numel() // width
    if total <= count:
        return torch.arange(total)
    return torch.randperm(total, generator=generator)[:count].sort().values


def rows_at(output: Tensor, layer: LinearMap, where: Tensor) -> Tensor:
    """The output at these positions, `(positions, output channels)`; also for a gradient of it."""
    if isinstance(layer, nn.Linear):
        return output.reshape(-1, output.shape[-1])[where]
    image, y, x = _pixels(output.shape[2:], where)
    return output[image, :, y, x]


def columns_at(layer: LinearMap, value: Tensor, where: Tensor) -> Tensor:
    """What the layer reads at these positions of its output.

    Args:
        layer: the layer.
        value: its input.
        where: positions in its output.

    Returns:
        `(positions, input channels, kernel elements)`.
    """
    if isinstance(layer, nn.Linear):
        return value.reshape(-1, value.shape[-1])[where][:, :, None]
    vertical, horizontal = (int(side) for side in layer.padding)
    padded = F.pad(value, (horizontal, horizontal, vertical, vertical))
    reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    height, width = (
        (length - more) // stride + 1
        for length, more, stride in zip(padded.shape[2:], reach, layer.stride, strict=True)
    )
    image, y, x = _pixels((height, width), where)
    taps = [
        padded[image, :, y * layer.stride[0] + dy, x * layer.stride[1] + dx]
        for dy, dx in _offsets(layer)
    ]
    return torch.stack(taps, 2)


def matrix_of(layer: LinearMap) -> Tensor:
    """The weight as `(output channels, input channels, kernel elements)`."""
    return layer.weight.detach().reshape(*layer.weight.shape[:2], -1)


def _offsets(layer: nn.Conv2d) -> Iterator[tuple[int, int]]:
    (height, width), (down, right) = layer.kernel_size, layer.dilation
    return ((dy * down, dx * right) for dy in range(height) for dx in range(width))


def _pixels(size: Sequence[int], where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    height, width = size
    return where // (height * width), where // width % height, where % width

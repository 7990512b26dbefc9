"""The arguments a network is run with while it is studied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from drc.core.errors import ModelError
from drc.core.probe import NothingTakenError, first_line, first_taken, noise
from drc.networks.traits import needed_inputs, numbers_like, possible_channels

Inputs = Tensor | tuple | Mapping[str, Any]
"""One image batch, a tuple of positional arguments, or a mapping of keyword arguments."""

_SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512)


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Run the network on any kind of inputs, which it may write into without harm."""
    inputs = map_inputs(torch.clone, inputs)
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs)


def map_inputs(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Apply `function` to every tensor of the inputs."""
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, inputs)


def tensors_of(values: Any) -> list[Tensor]:
    """The tensors anywhere in inputs or outputs."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def example_input(model: nn.Module, channels: int | None = None) -> Tensor:
    """The smallest square image batch `(1, channels, s, s)` on which the network runs.

    Args:
        model: the network.
        channels: of the image; by default what its first convolution or the usual counts suggest.

    Raises:
        ModelError: it runs on none of the images tried, or needs more than an image.
    """
    needed = needed_inputs(model)
    if len(needed) > 1:
        raise ModelError(
            f"the forward of {type(model).__name__} needs {', '.join(needed)}; "
            "pass example inputs for all of them"
        )
    candidates = (channels,) if channels is not None else _likely_channels(model)
    shapes = ((count, size, size) for count in candidates for size in _SIZES)
    try:
        with torch.no_grad():
            return first_taken(noise(shapes, numbers_like(model)), lambda image: model(image))[0]
    except NothingTakenError as refused:
        # Of the likeliest images the largest: smaller ones may have been just that, too small.
        error = [error for image, error in refused.failures if image.shape[1] == candidates[0]][-1]
    raise ModelError(
        f"the network runs on no {'-, '.join(map(str, candidates))}-channel image of {_SIZES[0]} "
        f"to {_SIZES[-1]} pixels ({type(error).__name__}: {first_line(error)}); "
        "drc needs a module that maps an image batch to an SR image batch, or example inputs"
    ) from error


def _likely_channels(model: nn.Module) -> tuple[int, ...]:
    """What images for the network may have, first what its first convolution takes."""
    possible = possible_channels(model)
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels in possible:
        return (first.in_channels, *(c for c in possible if c != first.in_channels))
    return possible

"""What the rest of drc must know about a network besides its layers."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from drc.core.errors import ModelError
from drc.core.probe import (
    CHANNELS,
    NothingTakenError,
    first_line,
    first_taken,
    noise,
    scale_between,
)
from drc.core.runtime import eval_mode
from drc.networks.blueprint import Blueprint

ATTRIBUTE = "drc_traits"

_SIDES = (48, 64, 128)


class _NotRunError(ModelError):
    """The network runs on none of the small images tried."""


@dataclass(frozen=True)
class Traits:
    """Facts of one network.

    Attributes:
        scale: HR side over LR side, an integer of at least 1.
        value_range: the largest value of an image tensor, 255.0 or 1.0; the smallest is 0.
        preset: the registered name it was built from, or None for another network.
        widths: the published-order widths it was built with, or None for the dense network.
        channels: of its images, LR and SR alike: 3 for RGB, 1 for luma.
        blueprint: what rebuilds a network that spandrel recognised; None for the others.
    """

    scale: int
    value_range: float = 1.0
    preset: str | None = None
    widths: tuple[int, ...] | None = None
    channels: int = 3
    blueprint: Blueprint | None = None


def set_traits(model: nn.Module, traits: Traits) -> None:
    setattr(model, ATTRIBUTE, traits)


def get_traits(model: nn.Module) -> Traits:
    """Return the traits of `model`; those of a foreign network are measured by running it once.

    A foreign network may declare `value_range` (a float) and `scale` (an int) as attributes;
    without them the range is 1.0 and the scale is read off that forward pass, as are the channels.

    Raises:
        ModelError: the network does not run on a small image, returns something else than images
            of as many channels, or changes the aspect ratio.
    """
    known = getattr(model, ATTRIBUTE, None)
    if known is not None:
        return known
    value_range = float(getattr(model, "value_range", 1.0))
    scale = getattr(model, "scale", None)
    if not isinstance(scale, int) or isinstance(scale, bool):
        lr, outputs = _run_once(model, value_range)
        return Traits(_scale_of(lr, outputs), value_range, channels=lr.shape[1])
    try:
        lr, outputs = _run_once(model, value_range)
    except _NotRunError:  # whoever runs it will say what is wrong
        return Traits(scale, value_range)
    final_output(outputs)
    return Traits(scale, value_range, channels=lr.shape[1])


def possible_channels(model: nn.Module) -> tuple[int, ...]:
    """The channels that images for `model` may have, the likeliest first."""
    known = getattr(model, ATTRIBUTE, None)
    return CHANNELS if known is None else (known.channels,)


def numbers_like(model: nn.Module) -> Tensor:
    """A tensor of the number type and on the device that images for `model` are to have."""
    return next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))


def final_output(outputs: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """The SR image among a network's outputs: the tensor itself, or the last of a pyramid."""
    final = outputs[-1] if isinstance(outputs, (list, tuple)) and outputs else outputs
    if not isinstance(final, Tensor):
        raise ModelError(
            f"the network returns {_in_words(outputs)}; drc needs an SR image, or a list of "
            "images from coarse to fine: wrap the network so that it does"
        )
    return final


def sr_images(outputs: Any, channels: int) -> list[Tensor]:
    """A network's outputs as a list of images, coarse to fine.

    Raises:
        ModelError: one of them is no image batch of that many channels.
    """
    final_output(outputs)
    images = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    if any(not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != channels for x in images):
        raise ModelError(
            f"the network returns {_in_words(outputs)} for images of {channels} channels; of a "
            "list or tuple drc takes every entry for an SR image of as many channels, coarse to "
            "fine, and the last for the result: wrap the network so that it returns images alone"
        )
    return images


def unwrapped(model: nn.Module) -> nn.Module:
    """Take off the wrappers of torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def plain_network(model: object, image_alone: bool = True) -> nn.Module:
    """Return the network inside `model` if drc can work on it.

    Args:
        model: what a caller gave.
        image_alone: refuse a network whose forward needs more than the image.

    Raises:
        ModelError: not a module, a scripted one, one without parameters or with parameters that
            have no values, not in float32, or one whose forward needs more than the image.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"the network must be a torch.nn.Module, not {type(model).__name__}")
    model = unwrapped(model)
    refuse_unreadable(model)
    for name, part in model.named_modules():
        if hasattr(part, "_orig_mod"):
            raise ModelError(
                f"{_called(name)} was compiled by itself, and drc takes only whole networks apart; "
                "compile it after compression"
            )
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ModelError("the network has no parameters, so there is nothing to compress")
    for name, parameter in parameters.items():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ModelError(
                f"the network is not in float32 ({name} is {parameter.dtype}); convert it by "
                "model.float() first"
            )
    needed = needed_inputs(model)[1:]
    if needed and image_alone:
        raise ModelError(
            f"the forward of {type(model).__name__} needs {', '.join(needed)} besides the image; "
            "drc calls model(lr): wrap it in a module that passes the rest"
        )
    return model


def refuse_unreadable(model: nn.Module) -> None:
    """Raise ModelError for a network whose code or whose values are not at hand."""
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ModelError(
                f"{_called(name)} is a ScriptModule, whose layers cannot be cut; pass its source"
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ModelError(
                f"{name} is lazy and has no shape yet; run the network once on an image first"
            )
        if tensor.is_meta:
            raise ModelError(
                f"{name} is on the meta device and has no values; build the network on a real "
                "device and load its weights first"
            )


def _called(part: str) -> str:
    return f"the network's part {part}" if part else "the network"


def needed_inputs(model: nn.Module) -> list[str]:
    """The arguments without which the forward cannot be called."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]


def _run_once(model: nn.Module, value_range: float) -> tuple[Tensor, Any]:
    """The first of a few small images that the network takes, and what it gives for it."""

    def run(lr: Tensor) -> tuple[Any, bool]:
        given = lr.clone()
        with eval_mode(model), torch.no_grad():
            return model(lr), torch.equal(lr, given)

    shapes = ((channels, side, side) for side in _SIDES for channels in CHANNELS)
    try:
        lr, (outputs, untouched) = first_taken(noise(shapes, numbers_like(model), value_range), run)
    except NothingTakenError as refused:
        error = refused.failures[0][1]
        raise _NotRunError(
            f"the network does not run on a 1x3x48x48 image ({type(error).__name__}: "
            f"{first_line(error) or 'no message'}), nor on 1 or 4 channels or larger ones; "
            "drc needs a module that maps an LR image batch to an SR image batch"
        ) from error
    if not untouched:
        raise ModelError(
            "the network writes into the image it is given, which the losses need as it "
            "was; make its forward begin with x = x.clone()"
        )
    return lr, outputs


def _scale_of(lr: Tensor, outputs: Any) -> int:
    sr = sr_images(outputs, lr.shape[1])[-1]
    scale = scale_between(lr, sr)
    if scale is None:
        side, (height, width) = lr.shape[-1], sr.shape[-2:]
        raise ModelError(
            f"a {side}x{side} input gave a {height}x{width} output; drc needs a whole-number scale"
        )
    return scale


def _in_words(outputs: Any) -> str:
    """What a network returned, for a message."""
    if isinstance(outputs, Tensor):
        return f"a tensor of shape {'x'.join(map(str, outputs.shape))}"
    if isinstance(outputs, dict):
        return f"a dict of {', '.join(map(repr, list(outputs)[:4]))}"
    if isinstance(outputs, (list, tuple)) and outputs:
        kind = type(outputs).__name__
        return f"a {kind} of " + " and ".join(_in_words(part) for part in outputs[:3])
    return f"a {type(outputs).__name__}"

"""What the rest of drc must know about a network besides its layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drc.errors import ModelError
from drc.runtime import eval_mode

ATTRIBUTE = "drc_traits"


@dataclass(frozen=True)
class Traits:
    """Facts of one network.

    Attributes:
        scale: HR side over LR side, an integer of at least 1.
        value_range: the largest value of an image tensor, 255.0 or 1.0; the smallest is 0.
        preset: the registered name it was built from, or None for a network of the user's.
        widths: the published-order widths it was built with, or None for the dense network.
    """

    scale: int
    value_range: float = 1.0
    preset: str | None = None
    widths: tuple[int, ...] | None = None


def set_traits(model: nn.Module, traits: Traits) -> None:
    setattr(model, ATTRIBUTE, traits)


def get_traits(model: nn.Module) -> Traits:
    """Return the traits of `model`, measuring the scale of a foreign network by running it once.

    A foreign network may declare `value_range` (a float) and `scale` (an int) as attributes;
    without them the range is 1.0 and the scale is read off one forward pass.

    Raises:
        ModelError: the network does not run on a small RGB image or changes its aspect ratio.
    """
    known = getattr(model, ATTRIBUTE, None)
    if known is not None:
        return known
    value_range = float(getattr(model, "value_range", 1.0))
    scale = getattr(model, "scale", None)
    if not isinstance(scale, int) or isinstance(scale, bool):
        scale = _measure_scale(model, value_range)
    return Traits(scale=scale, value_range=value_range)


def final_output(outputs: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """The SR image among a network's outputs: the tensor itself, or the last of a pyramid."""
    final = outputs[-1] if isinstance(outputs, (list, tuple)) and outputs else outputs
    if not isinstance(final, Tensor):
        raise ModelError(
            f"the network returns a {type(final).__name__}; drc needs an SR image, or a list of "
            "images from coarse to fine: wrap the network so that it does"
        )
    return final


def unwrapped(model: nn.Module) -> nn.Module:
    """Take off the wrappers of torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def plain_network(model: object) -> nn.Module:
    """Return the network inside `model` if drc can work on it.

    Raises:
        ModelError: not a module, a scripted one, one without parameters or not in float32.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"the network must be a torch.nn.Module, not {type(model).__name__}")
    model = unwrapped(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "the network is a ScriptModule, whose layers cannot be cut; pass its source"
        )
    parameters = list(model.parameters())
    if not parameters:
        raise ModelError("the network has no parameters, so there is nothing to compress")
    if any(p.dtype != torch.float32 for p in parameters):
        raise ModelError("the network is not in float32; convert it by model.float() first")
    return model


def _measure_scale(model: nn.Module, value_range: float) -> int:
    tensor = next(model.parameters(), torch.zeros(()))
    lr = torch.rand(1, 3, 48, 48, device=tensor.device, dtype=tensor.dtype) * value_range
    try:
        with eval_mode(model), torch.no_grad():
            sr = final_output(model(lr))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"the network does not run on a 1x3x48x48 image ({type(error).__name__}: {error}); "
            "drc needs a module that maps an LR image batch to an SR image batch"
        ) from error
    height, width = sr.shape[-2:]
    if height % 48 or width % 48 or height != width:
        raise ModelError(
            f"a 48x48 input gave a {height}x{width} output; drc needs a whole-number scale"
        )
    return height // 48

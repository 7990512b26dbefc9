"""Networks that spandrel recognises by their checkpoints; the only file that imports spandrel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import DrcError, ModelError, WeightsError
from drc.networks.blueprint import Blueprint
from drc.networks.checkpoints import first_line
from drc.networks.traits import Traits, final_output, get_traits, set_traits

EXTRA = "pip install 'drc-sr[spandrel]'"

Call = Callable[[Any, Tensor], Tensor]

_SAME = 1e-3  # float32 sums in another order
_WRITES_INTO_ITS_INPUT = {"RCAN"}
# spandrel promises to run single images only; the code of these relies on it.
_TAKES_ONE_IMAGE = {"DRUNet", "IPT", "SeemoRe"}


def open_checkpoint(state: Mapping[str, Tensor], path: Path | str) -> nn.Module:
    """Build the network of a checkpoint and load it, in eval mode, with its traits set.

    The network is spandrel's own module. Where its architecture asks for image sizes of a kind,
    or for more than the image, its forward is adapted: it takes any LR image, and gives the SR
    image.

    Args:
        state: the checkpoint, as `read_checkpoint` gives it.
        path: where it came from, for messages.

    Raises:
        WeightsError: spandrel is not installed, or does not know the checkpoint.
        ModelError: the network does not map images to images of as many channels.
    """
    spandrel = _import_spandrel(
        f"{path} is of no network that drc knows by itself; spandrel may know it"
    )
    state = spandrel.canonicalize_state_dict(dict(state))
    supported = spandrel.MAIN_REGISTRY.architectures("detection")
    found = next((entry.architecture for entry in supported if entry.detect(state)), None)
    if found is None:
        raise WeightsError(
            f"{path} is of no network that drc or spandrel {spandrel.__version__} recognises (its "
            f"names begin {', '.join(list(state)[:2])}); pass --model package.module:factory"
        )
    blueprint = Blueprint.of(found.id, state)
    try:
        descriptor = _load(found, state)
    except Exception as error:  # each architecture raises what it likes on a checkpoint that lies
        raise WeightsError(
            f"spandrel takes {path} for {found.id} but cannot load it "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    for name, parameter in descriptor.model.named_parameters():
        if not parameter.isfinite().all():
            raise WeightsError(f"{path} is damaged: {name} holds NaN or infinity")
    return _network(descriptor, blueprint)


def build(blueprint: Blueprint, state: Mapping[str, Tensor]) -> nn.Module:
    """Build the dense network of a blueprint; its weights mean nothing.

    Args:
        blueprint: of the checkpoint that was opened.
        state: of the network that was cut from it; tensors that kept their shape tell what an
            architecture reads off values, such as tables and masks.

    Raises:
        WeightsError: spandrel is not installed.
        ModelError: this spandrel does not build it.
    """
    spandrel = _import_spandrel(f"its {blueprint.architecture} is built by spandrel")
    entry = spandrel.MAIN_REGISTRY.get(blueprint.architecture)
    if entry is None:
        raise ModelError(f"spandrel {spandrel.__version__} knows no {blueprint.architecture}")
    try:
        descriptor = _load(entry.architecture, blueprint.fill(state))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"spandrel {spandrel.__version__} cannot build its {blueprint.architecture} "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    return _network(descriptor, blueprint)


def require(why: str) -> None:
    """Raise WeightsError, which begins with `why`, unless spandrel can be imported."""
    _import_spandrel(why)


def why_not_plain(model: nn.Module, image: Tensor) -> str | None:
    """Why spandrel makes another network of state dicts like that of `model`; None if it does not.

    Args:
        model: a network in eval mode, with its traits. It is moved to the CPU, and its weights are
            replaced by random ones: initial weights may hide that two networks differ.
        image: on which both are compared, `(1, C, h, w)` in 0..1.
    """
    traits = get_traits(model)
    model, image = model.cpu().float(), image.cpu().float()  # where spandrel builds its own
    _randomise(model)
    try:
        plain = open_checkpoint({k: v.clone() for k, v in model.state_dict().items()}, "it")
    except DrcError as error:
        return str(error)
    with torch.no_grad():
        wanted = final_output(model(image * traits.value_range)) / traits.value_range
        made = final_output(plain(image))
    if made.shape != wanted.shape:
        return f"spandrel takes it for a network x{get_traits(plain).scale}"
    distance = float((made - wanted).abs().max() / wanted.abs().max())
    if not distance < _SAME:
        return f"as {type(plain).__name__} of its own sizes it gives other images"
    return None


def _randomise(model: nn.Module) -> None:
    """Weights with which every layer passes on about as much as it gets."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (parameter[0].numel() ** -0.5))
            else:
                parameter.add_(0.1 * noise.to(parameter))


def _import_spandrel(why: str) -> ModuleType:
    try:
        import spandrel
    except ModuleNotFoundError as error:
        missing = "" if error.name == "spandrel" else f" (it lacks {error.name})"
        raise WeightsError(f"{why}{missing}: {EXTRA}") from error
    # torchvision, which spandrel imports, raises RuntimeError beside a torch of another build.
    except (ImportError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"{why}, but its import fails ({first_line(error)}): install torch "
            f"{torch.__version__} and torchvision from the same index"
        ) from error
    return spandrel


def _load(architecture: Any, state: Mapping[str, Tensor]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old torch calls in the architectures; not the user's
        return architecture.load(dict(state))  # some take entries out


def _network(descriptor: Any, blueprint: Blueprint) -> nn.Module:
    """The module of a spandrel descriptor, adapted, with its traits."""
    name = blueprint.architecture
    inputs, outputs = descriptor.input_channels, descriptor.output_channels
    if descriptor.purpose == "Inpainting":
        raise ModelError(f"{name} needs a mask beside the image; drc takes image to image networks")
    if inputs != outputs:
        raise ModelError(
            f"this {name} makes {outputs}-channel images of {inputs}-channel ones; drc needs "
            "networks that keep the channels of the image"
        )
    model: nn.Module = descriptor.model
    _adapt(model, descriptor)
    traits = Traits(scale=descriptor.scale, channels=inputs, blueprint=blueprint)
    set_traits(model, traits)
    return model.eval()


def _adapt(model: nn.Module, descriptor: Any) -> None:
    """Give `model` a forward from any batch of LR images to SR images, if its own is not that."""
    name, sizes, scale = descriptor.architecture.id, descriptor.size_requirements, descriptor.scale
    call: Call = descriptor._call_fn
    # The function that calls the network and no more is defined where descriptors are.
    as_it_is = call.__module__ == type(descriptor).__module__
    writes = name in _WRITES_INTO_ITS_INPUT
    single = name in _TAKES_ONE_IMAGE or getattr(model, "mode", None) == "FDnCNN"
    if as_it_is and sizes.none and not writes and not single:
        return

    def forward(self: nn.Module, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        right, bottom = sizes.get_padding(width, height)
        images = _extended(images.clone() if writes else images, bottom, right)
        network = _AsWritten(self)
        if single and len(images) > 1:
            outputs = torch.cat([call(network, image) for image in images.split(1)])
        else:
            outputs = call(network, images)
        return outputs[..., : height * scale, : width * scale]

    # A bound method follows the network when that is copied, and leaves it the architecture's
    # own class, which `drc.apply` can fill.
    model.forward = MethodType(forward, model)


class _AsWritten:
    """A network as its class runs it, under a forward that was adapted."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return type(self._network).forward(self._network, *args, **kwargs)

    __call__ = forward

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def _extended(image: Tensor, bottom: int, right: int) -> Tensor:
    """Extend an image by its reflection, and beyond that by its last pixels."""
    height, width = image.shape[-2:]
    down, across = min(bottom, height - 1), min(right, width - 1)
    if down or across:
        image = F.pad(image, (0, across, 0, down), mode="reflect")
    if bottom > down or right > across:
        image = F.pad(image, (0, right - across, 0, bottom - down), mode="replicate")
    return image

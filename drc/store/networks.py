"""Compressed networks on disk: safetensors with a header that tells how to build the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from drc.core.errors import DrcError, ModelError, RunError, WeightsError
from drc.core.files import write_bytes
from drc.core.runtime import resolve_device
from drc.graph.surgery import Cut, apply_cut, get_cut
from drc.networks import registry, spandrel_networks
from drc.networks.blueprint import Blueprint
from drc.networks.checkpoints import differences, read_file, shapes
from drc.networks.copying import copy_of
from drc.networks.dual import AnyDual
from drc.networks.traits import Traits, get_traits, set_traits, unwrapped
from drc.store.plan import check_version, first_problem

SCHEMA_VERSION = 2
METADATA_KEY = "drc"


class Header(BaseModel):
    """What a saved network's file says beside its tensors.

    Attributes:
        schema_version: raised when a reader of the older files would misread the new ones.
        format: always `drc-model`.
        network: `module.Class`, for messages; it is never imported.
        preset: registered name to build from, or None for another network.
        blueprint: what spandrel builds it from, or None for another network.
        scale: HR side over LR side; None for a network that does not map one image to another
            of as many channels, which `apply` fills all the same.
        widths: the widths it was built with, before any cut; None for the dense network.
        value_range: the largest value of an image tensor.
        channels: of its images.
        memory_format: the layout of its weights; another layout gives other last digits.
        cut: `Cut.to_json`: the indices kept of each tensor, or None for an uncut network.
        provenance: facts that the caller wants kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    format: Literal["drc-model"] = "drc-model"
    network: str
    preset: str | None
    blueprint: Blueprint | None = None
    scale: int | None = Field(ge=1)
    widths: tuple[int, ...] | None
    value_range: float = Field(gt=0)
    channels: int = Field(default=3, ge=1)
    memory_format: Literal["contiguous", "channels_last"]
    cut: dict[str, Any] | None
    provenance: dict[str, Any] = Field(default_factory=dict)


def save(model: nn.Module, path: Path | str, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a network, cut or not, to a safetensors file that `load` or `apply` reads.

    Args:
        model: on any device; wrappers of torch.compile and DataParallel are taken off.
        path: the file; it is written atomically.
        provenance: plain JSON values to keep in the file, such as where the weights came from.

    Raises:
        ModelError: the state holds something besides tensors, or the layers of a network that drc
            builds were changed by other means than drc's, so that it could not be built again.
        RunError: the system refused to write.
    """
    model = unwrapped(model)
    state = _plain_tensors(model)
    header = _describe(model, state, provenance)
    if _buildable(header):
        problem = differences(shapes(_rebuilt(header, state, torch.device("meta"))), shapes(state))
        if problem:
            raise ModelError(
                f"this {header.preset or header.network} was changed outside drc and could not be "
                f"built again ({problem}); remove its drc_traits attribute to save it as your own "
                "network"
            )
    write_bytes(path, to_bytes(state, metadata={METADATA_KEY: header.model_dump_json()}))


def load(path: Path | str, device: str | torch.device = "cpu") -> nn.Module:
    """Build the network in a file of `save`, in eval mode, with its traits set.

    That can be done for registered networks, and for those that spandrel recognised. Its outputs
    equal those of the network that was saved, bit for bit on the same machine. Only tensors and
    JSON are read: no code of the file's runs.

    Args:
        path: a file of `save`.
        device: auto, cpu or cuda:N.

    Raises:
        WeightsError: the file is missing, damaged, of a newer drc, not one of `save`'s, needs
            spandrel, or holds a network of the user's (use `apply`).
    """
    target = resolve_device(device)
    header = read_header(path)
    if not _buildable(header):
        raise WeightsError(
            f"{path} holds {header.network}, which drc cannot build; "
            "make one as you did before and use drc.apply(your_model, path)"
        )
    state = read_file(Path(path))
    try:
        model = _rebuilt(header, state, torch.device("cpu"))
    except DrcError as error:
        raise WeightsError(f"{path} cannot be built by this version of drc: {error}") from error
    return _filled(model, header, state, path).to(target)


def apply(model: nn.Module, path: Path | str) -> nn.Module:
    """Return a new network: `model`, made anew by its own class, cut and filled as the file says.

    Args:
        model: dense, built as it was before it was compressed; it is not changed.
        path: a file of `save`.

    Returns:
        The saved network, in eval mode, on the device of `model`.

    Raises:
        WeightsError: the file is unusable, or of another network than `model`.
        ModelError: `model` was already cut.
    """
    header = read_header(path)
    if get_cut(model) is not None:
        raise ModelError("this network is already cut; pass one as built by its class")
    fresh = copy_of(unwrapped(model))
    try:
        _cut(fresh, header)
    except ModelError as error:
        raise WeightsError(f"{path} holds {header.network}: {error}") from error
    _give_traits(fresh, header)
    return _filled(fresh, header, read_file(Path(path)), path)


def read_header(path: Path | str) -> Header:
    """Read what a file of `save` says about its network, without its tensors.

    Raises:
        WeightsError: the file is missing, damaged, of a newer drc, or not one of `save`'s.
    """
    if not Path(path).is_file():
        raise WeightsError(f"there is no file {path}")
    not_ours = (
        f"{path} was not saved by drc.save; drc.create_model(name, weights=FILE) reads others"
    )
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY, "")
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        if Path(path).suffix != ".safetensors":
            raise WeightsError(not_ours) from error
        raise WeightsError(f"{path} is corrupt or cut short ({error})") from error
    try:
        content = json.loads(text)
    except ValueError:
        raise WeightsError(not_ours) from None
    if not isinstance(content, dict) or content.get("format") != "drc-model":
        raise WeightsError(not_ours)
    try:
        check_version(content.get("schema_version"), SCHEMA_VERSION, path)
        return Header.model_validate(content)
    except RunError as error:
        raise WeightsError(str(error)) from error
    except ValidationError as error:
        raise WeightsError(f"{path} has a damaged header: {first_problem(error)}") from error


def saved_by_drc(path: Path | str) -> bool:
    """Whether a file carries a header of `save`; that header may still be damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def save_dual(dual: AnyDual, path: Path | str) -> None:
    """Write a dual model for `load_dual`, atomically. Raises RunError when the system refuses."""
    write_bytes(path, to_bytes(_plain_tensors(dual)))


def _describe(
    model: nn.Module, state: Mapping[str, Tensor], provenance: Mapping[str, Any] | None
) -> Header:
    try:
        traits = get_traits(model)
        scale: int | None = traits.scale
    except ModelError:
        traits, scale = Traits(scale=1), None
    step = get_cut(model)
    return Header(
        network=f"{type(model).__module__}.{type(model).__qualname__}",
        preset=traits.preset,
        blueprint=traits.blueprint,
        scale=scale,
        widths=traits.widths,
        value_range=traits.value_range,
        channels=traits.channels,
        memory_format="channels_last" if _is_channels_last(model) else "contiguous",
        cut=None if step is None else step.to_json(),
        provenance=dict(provenance or {}),
    )


def _buildable(header: Header) -> bool:
    return header.preset is not None or header.blueprint is not None


def _rebuilt(header: Header, state: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """The network of `header`, cut as it says, on weights that mean nothing.

    spandrel's are built on the CPU always, because several read numbers while they are built.
    """
    # Initial weights are drawn and thrown away; the caller's random numbers stay as they were.
    with torch.random.fork_rng(devices=[]):
        if header.blueprint is not None:
            model = spandrel_networks.build(header.blueprint, state)
        else:
            with device:
                model = registry.build(str(header.preset), header.scale or 1, header.widths)
    _cut(model, header)
    return model


def _cut(model: nn.Module, header: Header) -> None:
    if header.cut is None:
        return
    try:
        apply_cut(model, Cut.from_json(header.cut))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"the recorded cut is damaged ({error})") from error


def _filled(
    model: nn.Module, header: Header, state: Mapping[str, Tensor], path: Path | str
) -> nn.Module:
    """Put the file's tensors into `model`, keeping the file's number types."""
    problem = differences(shapes(model), shapes(state))
    if problem:
        raise WeightsError(f"{path} holds {header.network}, and this is another: {problem}")
    for name, tensor in model.state_dict(keep_vars=True).items():
        tensor.data = tensor.data.to(state[name].dtype)
    model.load_state_dict(state)
    if header.memory_format == "channels_last":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def _give_traits(model: nn.Module, header: Header) -> None:
    """Give a network the traits that its file states."""
    if header.scale is None:
        return
    traits = Traits(
        scale=header.scale,
        value_range=header.value_range,
        preset=header.preset,
        widths=header.widths,
        channels=header.channels,
        blueprint=header.blueprint,
    )
    set_traits(model, traits)


def _plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict as separate, contiguous CPU tensors; safetensors refuses shared memory."""
    state = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise ModelError(f"{name} of {type(model).__name__} is no tensor and cannot be saved")
        state[name] = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    return state


def _is_channels_last(model: nn.Module) -> bool:
    return any(
        tensor.ndim == 4
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
        for tensor in model.state_dict().values()
    )

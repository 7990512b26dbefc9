"""Find, read and load pretrained weights, whatever they are wrapped in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, overload

import torch
from torch import nn

from drc.core.errors import UsageError, WeightsError
from drc.core.runtime import Progress
from drc.networks import registry
from drc.networks.checkpoints import (
    Shapes,
    differences,
    read_checkpoint,
    read_file,
    shapes,
)
from drc.networks.download import DownloadError, fetch, require_checksum
from drc.networks.dual import PREFIX, AnyDual, dual_in, load_dual
from drc.networks.registry import Preset, WeightsFile
from drc.networks.traits import get_traits

T = TypeVar("T")

_PACKAGED = Path(__file__).parent / "pretrained"
_REMEDY = "download it elsewhere and pass --weights FILE, or --weights none for initial weights"


@overload
def create_model(
    name: str,
    scale: int = ...,
    weights: str | Path | None = ...,
    widths: Sequence[int] | None = ...,
    dual: Literal[False] = ...,
) -> nn.Module: ...


@overload
def create_model(
    name: str,
    scale: int = ...,
    weights: str | Path | None = ...,
    widths: Sequence[int] | None = ...,
    *,
    dual: Literal[True],
) -> tuple[nn.Module, AnyDual]: ...


def create_model(
    name: str,
    scale: int = 4,
    weights: str | Path | None = None,
    widths: Sequence[int] | None = None,
    dual: bool = False,
) -> nn.Module | tuple[nn.Module, AnyDual]:
    """Build a registered network on the CPU, in eval mode.

    Args:
        name: one of `drc.list_models()`.
        scale: HR side over LR side.
        weights: None or `none` for initial weights, `default` for the published or packaged
            ones (downloaded to the torch hub cache when needed), or a checkpoint file.
        widths: compressed widths in the network's published order; None for the preset's own.
        dual: also return a dual model: that of the weights file, or the packaged one beside
            default weights, where there is one; otherwise on initial weights.

    Returns:
        The network, or `(network, dual model)`. Images are in the range of its traits.

    Raises:
        UsageError: unknown name, a scale the network does not have, unusable widths, or default
            weights asked for widths that they do not have.
        WeightsError: the weights are missing, unreadable or those of another network.
    """
    model = registry.build(name, scale, widths)
    preset, default = registry.get_preset(name), weights == "default"
    if default and widths is not None and shapes(model) != registry.schema(name, scale):
        raise UsageError(
            f"the published weights of {name} do not have these widths; "
            "give weights a file made for them, or none"
        )
    path = locate(preset, scale, weights or "none")
    if path is not None:
        load_weights(model, path)
    if not dual:
        return model
    shipped = locate_dual(preset, scale) if default else None
    if shipped is not None:
        return model, load_dual(shipped, scale)
    its_own = dual_in(path, scale) if path is not None else None
    return model, its_own or preset.dual(scale).eval()


def locate(
    preset: Preset, scale: int, spec: str | Path | None, progress: Progress | None = None
) -> Path | None:
    """Find the weights file that `spec` means, downloading it when it has to be.

    Args:
        preset: the registered network.
        scale: one of its scales.
        spec: `none`; `default` or None for the packaged or published file; or a file's path.
        progress: called as a download goes on, with its bytes.

    Returns:
        The file, or None for `none`. Downloads go to the torch hub cache (see TORCH_HOME) and a
        file already there is used without asking the network.

    Raises:
        UsageError: the preset has no such scale.
        WeightsError: no such file, nothing published, or the download failed; the message says
            which file to fetch from where, and how to pass it.
    """
    preset.require_scale(scale)
    if spec == "none":
        return None
    if spec is not None and spec != "default":
        path = Path(spec).expanduser()
        if not path.is_file():
            raise WeightsError(f"there is no weights file {spec}; pass an existing one")
        return path
    source = preset.weights.get(scale)
    if source is None or not source.filename:
        raise WeightsError(
            f"no weights are published for {preset.name} x{scale}; "
            "pass --weights FILE, or --weights none for initial weights"
        )
    if source.packaged is None:
        return _published(source, f"{preset.name} x{scale}", progress)
    path = _PACKAGED / source.packaged
    if not path.is_file():
        raise WeightsError(
            f"this installation of drc lacks its file {source.packaged}; "
            "reinstall drc, or pass --weights FILE or --weights none"
        )
    return path


def _published(source: WeightsFile, network: str, progress: Progress | None) -> Path:
    """The cached file of `source`, downloaded first when it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / source.filename
    if path.is_file():
        try:
            require_checksum(path, source.sha256)
            read_file(path)
        except WeightsError as error:
            raise WeightsError(f"{error}; delete it, and drc fetches it again") from error
        return path
    try:
        fetch(str(source.url), path, sha256=source.sha256, check=read_file, progress=progress)
    except WeightsError as error:
        known = isinstance(error, DownloadError)
        reason = error if known else "what came is not a checkpoint that drc reads"
        raise WeightsError(
            f"cannot fetch {source.filename} for {network} from {source.url} ({reason}); {_REMEDY}"
        ) from error
    return path


def locate_dual(preset: Preset, scale: int) -> Path | None:
    """The trained dual model shipped beside a preset's packaged weights, or None."""
    source = preset.weights.get(scale)
    if source is None or source.packaged is None:
        return None
    path = _PACKAGED / f"{Path(source.packaged).stem}_dual.safetensors"
    return path if path.is_file() else None


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Load a checkpoint into `model`, every name and shape equal; other float types are converted.

    The dual model that a checkpoint may hold besides is left out; `load_dual` reads it.

    Raises:
        WeightsError: `read_checkpoint` failed, the file holds NaN or infinity, or is of another
            network: the first differing names, and the registered network that it is of.
    """
    state = _primal(read_checkpoint(path))
    expected, found = shapes(model), shapes(state)
    if found != expected:
        traits = get_traits(model)
        name = f"{traits.preset or type(model).__name__} x{traits.scale}"
        raise WeightsError(
            f"{path} does not fit {name}: {differences(expected, found)}{_owner(found)}"
        )
    for key, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise WeightsError(f"{path} is damaged: {key} holds NaN or infinity")
    model.load_state_dict(state)


def _primal(state: Mapping[str, T]) -> dict[str, T]:
    """What belongs to the network itself."""
    return {name: value for name, value in state.items() if not name.startswith(PREFIX)}


def registered_owner(found: Shapes) -> tuple[str, int] | None:
    """Name and scale of the registered network with exactly these names and shapes, or None.

    The names of a dual model may come besides.
    """
    own = _primal(found)
    for name, scale in _registered():
        known = registry.costs(name, scale)
        # Building every schema takes seconds; the number of tensors tells most networks apart.
        possible = known is None or known["tensors"] == len(own)
        if possible and registry.schema(name, scale) == own:
            return name, scale
    return None


def _owner(found: Shapes) -> str:
    """Name the registered network that has these names and shapes, as the end of a message."""
    owner = registered_owner(found)
    if owner is not None:
        return f"; it is {owner[0]} x{owner[1]}"
    alike = next(
        (key for key in _registered() if registry.schema(*key).keys() == found.keys()), None
    )
    if alike is None:
        return ""
    return (
        f"; its names are those of {alike[0]} x{alike[1]} with other channel counts "
        "(a compressed network that drc saved opens with drc.load)"
    )


def _registered() -> Iterator[tuple[str, int]]:
    """Names and scales of all registered networks."""
    for name in registry.list_models():
        for scale in registry.get_preset(name).arguments:
            yield name, scale

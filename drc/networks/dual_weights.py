"""Dual models on disk: in files of their own, inside a network's checkpoint, or beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from drc.core.errors import WeightsError
from drc.networks.dual import PREFIX, AnyDual, ChainDual, DualModel
from drc.networks.reader import differences, read_file, shapes, state_dict_of

FILENAME = "dual.safetensors"
"""What runs call the file of their dual model."""


def dual_with(weights: Path | str, scale: int, channels: int = 3) -> tuple[AnyDual, str] | None:
    """The dual model that comes with a network's checkpoint, and where it was, in words.

    It is inside the checkpoint, or in a file `dual.safetensors` beside it, as `drc train` leaves
    it. None where there is neither.

    Raises:
        WeightsError: as `load_dual`.
    """
    inside = dual_in(weights, scale, channels)
    if inside is not None:
        return inside, "in the weights file"
    path = Path(weights).parent / FILENAME
    if path.is_file():
        return load_dual(path, scale, channels), "beside the weights file"
    return None


def dual_in(path: Path | str, scale: int, channels: int = 3) -> AnyDual | None:
    """The dual model that a network's checkpoint holds besides, or None.

    Raises:
        WeightsError: as `load_dual`.
    """
    content = read_file(Path(path))
    state = _inside(state_dict_of(content, path)) if isinstance(content, Mapping) else {}
    return _dual_of(state, path, scale, channels) if state else None


def load_dual(path: Path | str, scale: int, channels: int = 3) -> AnyDual:
    """Read a dual model: an official list with one state dict per step, a saved one, or that in a
    checkpoint of both networks.

    The width inside is read off the weights.

    Args:
        path: the file.
        scale: HR side over LR side.
        channels: of the images that it is for.

    Raises:
        WeightsError: as `read_checkpoint`, or the file holds no dual model of this scale.
    """
    content = read_file(Path(path))
    if isinstance(content, (list, tuple)):
        state = {
            f"steps.{index}.{key}": tensor
            for index, step in enumerate(content)
            for key, tensor in state_dict_of(step, path).items()
        }
    else:
        state = state_dict_of(content, path)
        state = _inside(state) or state
    return _dual_of(state, path, scale, channels)


def _inside(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to the dual model in a checkpoint of both networks."""
    return {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


def _dual_of(state: Mapping[str, Tensor], path: Path | str, scale: int, channels: int) -> AnyDual:
    dual = _empty_dual(state, scale, channels)
    if dual is None:
        raise WeightsError(f"{path} holds no dual model; its names begin {list(state)[:1]}")
    expected, found = shapes(dual), shapes(state)
    if found != expected:
        images = f"x{scale}" if channels == 3 else f"x{scale} and {channels}-channel images"
        raise WeightsError(f"{path} is no dual model for {images}: {differences(expected, found)}")
    dual.load_state_dict(state)
    return dual.eval()


def _empty_dual(state: Mapping[str, Tensor], scale: int, channels: int) -> AnyDual | None:
    """A dual model of the kind and width that these names and shapes tell."""
    kinds: dict[str, type[DualModel] | type[ChainDual]] = {
        "steps.0.dual_module.0.0.weight": DualModel,
        "dual_module.0.0.weight": ChainDual,
    }
    for name, kind in kinds.items():
        first = state.get(name)
        if first is not None and first.ndim == 4:
            return kind(scale, width=first.shape[0], channels=channels)
    return None


__all__ = ["FILENAME", "dual_in", "dual_with", "load_dual"]

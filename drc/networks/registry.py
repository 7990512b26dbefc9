"""The networks drc knows by name. A network file registers its presets when it is imported."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import torch
import yaml
from torch import nn

from drc.core.errors import UsageError, unknown_name
from drc.networks.dual import AnyDual, DualModel
from drc.networks.traits import Traits, set_traits


@dataclass(frozen=True)
class WeightsFile:
    """Where a preset's pretrained weights come from: a URL, or a file shipped in the package."""

    url: str | None = None
    sha256: str | None = None
    packaged: str | None = None

    @property
    def filename(self) -> str:
        return self.packaged or (self.url or "").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Preset:
    """One registered network.

    Attributes:
        name: what the user types.
        build: the constructor; called as `build(scale=..., **arguments[scale])`.
        arguments: constructor values per scale; the keys are the scales that exist.
        value_range: the largest pixel value, 1.0 or 255.0.
        weights: pretrained file per scale; a missing scale has none.
        dual: constructor of the dual model that the papers train it with, called with the scale.
    """

    name: str
    build: Callable[..., nn.Module]
    arguments: dict[int, dict[str, Any]]
    value_range: float
    weights: dict[int, WeightsFile] = field(default_factory=dict)
    dual: Callable[[int], AnyDual] = DualModel

    def require_scale(self, scale: int) -> None:
        """Raise UsageError for a scale that the network does not have."""
        if scale not in self.arguments:
            known = ", ".join(f"x{s}" for s in sorted(self.arguments))
            raise UsageError(f"{self.name} has no scale x{scale}; it exists for {known}")


_PRESETS: dict[str, Preset] = {}


def register(preset: Preset) -> None:
    """Add a preset. Raises ValueError for a name that is taken (a defect, not a user error)."""
    if preset.name in _PRESETS:
        raise ValueError(f"a preset named {preset.name!r} is already registered")
    _PRESETS[preset.name] = preset


def list_models() -> list[str]:
    """Return the registered names, sorted."""
    _import_networks()
    return sorted(_PRESETS)


def get_preset(name: str) -> Preset:
    """Return the preset called `name`.

    Raises:
        UsageError: no such name; the message offers the nearest ones.
    """
    _import_networks()
    if name in _PRESETS:
        return _PRESETS[name]
    raise UsageError(unknown_name("network", name, _PRESETS))


def build(name: str, scale: int = 4, widths: Sequence[int] | None = None) -> nn.Module:
    """Build a registered network on its initial weights, in eval mode, with its traits set.

    Raises:
        UsageError: unknown name, a scale the network does not have, or unusable widths.
    """
    preset = get_preset(name)
    preset.require_scale(scale)
    arguments = dict(preset.arguments[scale])
    if widths is not None:
        if "widths" not in inspect.signature(preset.build).parameters:
            raise UsageError(f"{name} takes no widths")
        arguments["widths"] = list(widths)
    model = preset.build(scale=scale, **arguments)
    chosen = arguments.get("widths")
    set_traits(
        model, Traits(scale, preset.value_range, name, None if chosen is None else tuple(chosen))
    )
    return model.eval()


@cache
def schema(name: str, scale: int = 4) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a registered network's state dict, without its memory or random draws.

    Raises:
        UsageError: as `build`.
    """
    with torch.device("meta"):
        state = build(name, scale).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def costs(name: str, scale: int) -> dict[str, int] | None:
    """Parameters, MACs at LR 96x96 by fvcore, and tensors in the state dict, as counted once.

    None for a preset that others registered.
    """
    return _costs().get(f"{name}_x{scale}")


@cache
def _costs() -> dict[str, dict[str, int]]:
    text = resources.files("drc.networks.zoo").joinpath("costs.yaml").read_text("utf-8")
    return yaml.safe_load(text)


@cache
def _published(family: str) -> dict[str, list[int]]:
    """The compressed widths of an architecture, by key."""
    text = resources.files("drc.networks.zoo").joinpath(f"{family}.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def published_widths(key: str) -> list[int]:
    """Return a published widths list such as `drn_s30_x4`."""
    return list(_published(key.split("_")[0])[key])


@cache
def _import_networks() -> None:
    """Import every architecture, so that each registers its presets."""
    package = importlib.import_module("drc.networks.zoo")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"drc.networks.zoo.{module.name}")

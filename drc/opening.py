"""From what the user names to a network: the one place that knows every kind."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from drc.core.errors import UsageError, WeightsError
from drc.core.randomness import isolated
from drc.core.runtime import Progress
from drc.networks import factory, spandrel_networks
from drc.networks.checkpoints import read_checkpoint, shapes
from drc.networks.dual import AnyDual, DualModel, dual_with, load_dual
from drc.networks.registry import get_preset
from drc.networks.traits import Traits, get_traits, set_traits
from drc.networks.weights import create_model, load_weights, locate, locate_dual, registered_owner
from drc.settings import RecoverySettings
from drc.settings.base import is_file
from drc.settings.run import WHICH_NETWORK
from drc.store.networks import apply, load, saved_by_drc

DEFAULT_SCALE = 4

_WORDS = (None, "default", "none")


def open_network(
    model: str | None,
    weights: str | None = None,
    scale: int | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Build the network that settings name, on the CPU, in eval mode, with its traits set.

    Args:
        model: a registered name; code of the user's, `package.module:factory` or
            `path/to/file.py:factory`; or None to recognise the network by its weights.
        weights: a checkpoint file; `none` for initial weights; None or `default` for the
            published ones, or for what the factory made.
        scale: HR side over LR side; None for that of the network (4 where a name has several).
        progress: called as a download goes on, with its bytes.

    Raises:
        UsageError: neither names a network, the user's code fails, or `scale` is not the network's.
        WeightsError: the weights are missing, unreadable or of another network.
        ModelError: the network is in a form that drc cannot work on.
    """
    if model is None:
        network = _recognise(weights)
    elif factory.is_factory(model):
        network = _of_factory(model, weights)
    else:
        return _registered(model, weights, scale, progress)
    found = get_traits(network).scale
    if scale not in (None, found):
        raise UsageError(
            f"--scale {scale} is not that of the network: it enlarges x{found}; leave --scale out"
        )
    return network


def open_saved(model: str | None, path: Path | str) -> nn.Module:
    """Open a network that drc compressed and saved.

    Args:
        model: what `open_network` made the dense network of.
        path: a file of `drc.save`.

    Raises:
        WeightsError: the file is unusable, or of another network.
        UsageError, ModelError: the user's code no longer makes the network.
    """
    if model is not None and factory.is_factory(model):
        return apply(factory.make(model), path)
    return load(path)


def open_teacher(name: str, scale: int, progress: Progress | None = None) -> nn.Module:
    """Open what the setting `recovery.teacher` names, as `open_network` does.

    Args:
        name: a registered network, which gets its published weights; a checkpoint file; or code
            of the user's.
        scale: HR side over LR side, for a name that has several.
        progress: called as a download goes on, with its bytes.
    """
    if factory.is_factory(name):
        return open_network(name)
    if is_file(name):
        return open_network(None, name)
    return open_network(name, None, scale, progress)


def _recognise(weights: str | None) -> nn.Module:
    if weights in _WORDS:
        raise UsageError(WHICH_NETWORK)
    path = Path(str(weights)).expanduser()
    if not path.is_file():
        raise WeightsError(f"there is no weights file {weights}; pass an existing one")
    if saved_by_drc(path):
        return load(path)
    state = read_checkpoint(path)
    owner = registered_owner(shapes(state))
    if owner is not None:
        return create_model(*owner, weights=path)
    return spandrel_networks.open_checkpoint(state, path)


def _of_factory(spec: str, weights: str | None) -> nn.Module:
    network = factory.make(spec).eval()
    if weights not in _WORDS:
        path = Path(str(weights)).expanduser()
        if path.is_file() and saved_by_drc(path):
            return apply(network, path)
        load_weights(network, path)
    set_traits(network, get_traits(network))
    return network


def _registered(
    name: str, weights: str | None, scale: int | None, progress: Progress | None
) -> nn.Module:
    try:
        preset = get_preset(name)
    except UsageError as error:
        if not {".", "/"}.intersection(name):
            raise
        raise UsageError(f"{error}; code of your own is --model {factory.FORM}") from None
    if scale is None:
        scale = DEFAULT_SCALE if DEFAULT_SCALE in preset.arguments else min(preset.arguments)
    return create_model(name, scale, locate(preset, scale, weights, progress))


def find_dual(
    given: str | None, weights: str | None, traits: Traits, shipped: bool = True
) -> tuple[AnyDual, str] | None:
    """The trained dual model that is at hand, and where it was, in words; None without one.

    Args:
        given: a file that the settings name.
        weights: the settings' word for the network's weights: a file, "none", or None for the
            published ones, with which drc may ship a dual model.
        traits: of the network.
        shipped: whether that one will do; it gives back bicubic LR images.

    Raises:
        WeightsError: a file is unusable, or of another scale.
    """
    if given is not None:
        return load_dual(given, traits.scale, traits.channels), given
    if weights not in (None, "none"):
        return dual_with(weights, traits.scale, traits.channels)
    if weights is None and traits.preset is not None and shipped:
        path = locate_dual(get_preset(traits.preset), traits.scale)
        if path is not None:
            return load_dual(path, traits.scale), "shipped with drc"
    return None


def new_dual(model: nn.Module, settings: RecoverySettings, seed: int) -> AnyDual | None:
    """An untrained dual model of the kind that the papers train with this network."""
    if not settings.dual_weight:
        return None
    traits = get_traits(model)
    with isolated(seed):
        if traits.preset is not None:
            return get_preset(traits.preset).dual(traits.scale)
        return DualModel(traits.scale, channels=traits.channels)

"""Where the dual model of a run comes from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drc.cli.base_session import BaseSession
from drc.data.batches import BatchReader
from drc.networks.dual import AnyDual, dual_with, load_dual
from drc.networks.registry import get_preset
from drc.networks.traits import Traits
from drc.networks.weights import locate_dual
from drc.training.dual_fit import FIT_STEPS, fit_dual


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


def fitted_dual(session: BaseSession, crops: Iterable[Any], steps: int = FIT_STEPS) -> AnyDual:
    """A dual model fitted to `(lr, hr)` crops of the session's images, on the CPU."""
    traits, settings = session.traits, session.settings
    reader = BatchReader(crops, traits.scale, traits.value_range, "cpu", channels=traits.channels)
    return fit_dual(
        reader, traits.scale, traits.value_range, steps=steps, seed=settings.seed,
        device=settings.device, progress=session.display,
    ).cpu()  # fmt: skip

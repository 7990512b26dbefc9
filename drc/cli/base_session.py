"""What every command with a network and a run folder has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from drc.cli.display import Display
from drc.core.runtime import seed_everything
from drc.data.bundled import bundled_pairs
from drc.data.degrade import Degradation
from drc.data.folders import ImagePair, find_pairs
from drc.networks.traits import Traits, get_traits
from drc.opening import open_network
from drc.settings.runs import RunSettings, TrainRun
from drc.store.run_folder import RunFolder


@dataclass
class BaseSession:
    """A run's network and training images.

    Attributes:
        settings: of this run.
        display: where logs and progress go.
        command: what the user typed, such as `drc prune`.
        folder: the run folder: that of a run that goes on, or the new one once it is made.
    """

    settings: RunSettings | TrainRun
    display: Display
    command: str
    folder: RunFolder | None = None

    @property
    def run(self) -> RunFolder:
        if self.folder is None:
            raise RuntimeError("the run folder is made before the first step")
        return self.folder

    @cached_property
    def network(self) -> nn.Module:
        """The network to start from. Raises UsageError, WeightsError and ModelError."""
        settings = self.settings
        seed_everything(settings.seed)  # every command must draw the same initial weights
        return open_network(settings.model, settings.weights, settings.scale, self.display)

    @property
    def traits(self) -> Traits:
        return get_traits(self.network)

    @property
    def scale(self) -> int:
        return self.traits.scale

    @property
    def label(self) -> str:
        """What the run folder calls the network."""
        if self.settings.model is None:
            return self.traits.preset or type(self.network).__name__
        return self.settings.model.rpartition(":")[2]

    @cached_property
    def images(self) -> list[ImagePair]:
        """The images of the training folder. Raises DataError."""
        folder = self.settings.data.data
        return bundled_pairs() if folder is None else find_pairs(folder, self.scale)

    @cached_property
    def degradation(self) -> Degradation | None:
        """What makes the LR crops; None for LR files or bicubic. Raises UsageError."""
        data = self.settings.data
        if data.degradation == "bicubic":
            return None
        return Degradation(data.degradation, self.scale, data.noise)

    def plain_settings(self) -> dict[str, Any]:
        """The settings as `config.yaml` holds them."""
        return self.settings.model_dump(mode="json", exclude={"output"})

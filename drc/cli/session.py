"""One run of one command: its folder, its settings, and what they name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from drc.cli.display import Display
from drc.compression import Compression, check_names, plain
from drc.core.errors import UsageError
from drc.core.runtime import resolve_device, seed_everything
from drc.data.bundled import bundled_pairs
from drc.data.degrade import Degradation
from drc.data.folders import ImagePair, find_pairs
from drc.data.sources import ImageCrops
from drc.evaluation.benchmark import BUNDLED
from drc.evaluation.inference import Inference
from drc.networks.blind import KernelEstimator
from drc.networks.dual import AnyDual, DualModel, load_dual
from drc.networks.registry import get_preset
from drc.networks.traits import Traits, get_traits
from drc.opening import find_dual, open_network, open_saved, open_teacher
from drc.report.collect import INITIAL_WEIGHTS, Origin
from drc.settings import RunSettings, TrainRun
from drc.store.folder_store import FolderStore
from drc.store.run_folder import RunFolder
from drc.training.distill import teacher_factor
from drc.training.feature_distill import compared_layers


@dataclass
class BaseSession(ABC):
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
    @abstractmethod
    def running(self) -> str | None:
        """The step that is under way, or None."""

    @abstractmethod
    def check(self) -> None:
        """Find out early, before hours of work, that an input cannot be used."""

    @abstractmethod
    def new_folder(self, kind: str) -> RunFolder:
        """Make the run folder, of a kind."""

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

    def crops(self, images: list[ImagePair]) -> ImageCrops:
        """Random crops of some of the images, as the settings have them."""
        settings = self.settings
        return ImageCrops(
            images, self.scale, settings.data, settings.seed, self.degradation, self.display.log
        )

    def plain_settings(self) -> dict[str, Any]:
        """The settings as `config.yaml` holds them."""
        return plain(self.settings)

    def open_inputs(self, *names: str) -> None:
        """Open what the settings name, once for all steps; each raises where it is unusable."""
        for name in names:
            getattr(self, name)

    def require_colour(self, instead: str) -> None:
        """Raise UsageError for a network that takes no images from folders."""
        if self.traits.channels not in (1, 3):
            raise UsageError(
                f"folders hold RGB images and this network's have {self.traits.channels} channels; "
                f"use {instead} from Python, with batches of your own"
            )


@dataclass
class Session(BaseSession):
    """One compression, or a step of one."""

    settings: RunSettings

    @cached_property
    def compression(self) -> Compression:
        """The driver, on this run's folder."""
        return Compression(
            self.network,
            self.crops(self.images),
            self.settings,
            FolderStore(self.run, self.saved),
            dual=self.found_dual[0],
            teacher=self.teacher if self.settings.recovery.teacher else None,
            test=self.test_data,
            origin=Origin(self.command, self.weights_in_words, self.found_dual[1], self.notes),
            progress=self.display,
            log=self.display.log,
        )

    @cached_property
    def teacher(self) -> nn.Module:
        """What recovery learns from, a network of the same scale. Raises DrcError."""
        name = self.settings.recovery.teacher
        if name is None:
            return self.network
        teacher = open_teacher(name, self.scale, self.display)
        teacher_factor(self.traits, teacher)
        if self.settings.recovery.features:
            compared_layers(self.network, teacher)
        return teacher

    @cached_property
    def found_dual(self) -> tuple[AnyDual | None, str]:
        """A trained dual model that is at hand, and where it was. Raises WeightsError."""
        settings = self.settings
        # Shipped dual models give back bicubic LR images.
        shipped = self.degradation is None
        return find_dual(settings.dual, settings.weights, self.traits, shipped) or (None, "")

    @property
    def running(self) -> str | None:
        """The step that is under way, or None."""
        return self.compression.running if "compression" in self.__dict__ else None

    def new_folder(self, kind: str) -> RunFolder:
        """Make the run folder."""
        new = self.settings.output, self.label, self.scale, self.plain_settings()
        return RunFolder.create(*new, kind)

    def saved(self, path: Path) -> nn.Module:
        """A compressed network of this run. Raises WeightsError."""
        return open_saved(self.settings.model, path)

    @property
    def test_data(self) -> str | None:
        """What to measure on, as `evaluate` takes it; None for nothing."""
        folder = self.settings.data.test_data
        return None if folder == "none" else folder or BUNDLED

    @cached_property
    def test_pairs(self) -> list[ImagePair]:
        """The images behind `test_data`. Raises DataError."""
        return test_images(self.test_data, self.scale)

    @property
    def inference(self) -> Inference:
        """How test images go through the networks. Raises UsageError."""
        report = self.settings.report
        return Inference(report.self_ensemble, report.tile, report.overlap)

    def check(self) -> None:
        """Find out early, before hours of work, that an input cannot be used."""
        settings = self.settings
        if settings.search.front and self.command == "drc compress":
            raise UsageError(
                "drc compress takes one ratio; `drc search` solves several, and "
                "`drc prune --ratio` takes one of its plans"
            )
        resolve_device(settings.device)
        check_names(settings)
        self.open_inputs("inference", "network", "degradation", "images", "test_pairs")
        self.require_colour("drc.compress(model, loader)")
        if isinstance(self.network, KernelEstimator) and settings.recovery.kernel_weight:
            self._check_blur(self.network.kernel_size)
        if settings.search.dual_weight or settings.recovery.dual_weight:
            DualModel(self.scale)  # refuses a scale that it cannot have
        if settings.dual is not None:
            load_dual(settings.dual, self.scale, self.traits.channels)
        distils = settings.recovery.distill or settings.recovery.features
        if distils and self.command in ("drc compress", "drc finetune"):
            self.open_inputs("teacher")

    @property
    def weights_in_words(self) -> str:
        """Where the starting weights came from, as the report says it."""
        settings, preset = self.settings, self.traits.preset
        if settings.weights not in (None, "none"):
            return f"file {settings.weights}"
        if preset is None:
            return f"as {settings.model} makes them"
        if settings.weights == "none":
            return INITIAL_WEIGHTS
        source = get_preset(preset).weights[self.scale]
        if source.packaged:
            return f"shipped with drc ({source.packaged})"
        return f"published, {source.url}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the report must know of the images."""
        used = {pair.hr.resolve() for pair in self.images}
        shared = sum(pair.hr.resolve() in used for pair in self.test_pairs)
        if not shared:
            return ()
        return (f"{shared} of the test images were also used for calibration and recovery",)

    def _check_blur(self, size: int) -> None:
        patch = self.settings.recovery.patch
        if patch < size:
            raise UsageError(
                f"crops of {patch}x{patch} LR pixels do not show the {size}x{size} blur kernels "
                f"that {self.label} estimates; set --patch (recovery.patch) to {size} or more, or "
                "recovery.kernel_weight to 0"
            )


def test_images(data: str | None, scale: int) -> list[ImagePair]:
    """The images behind `Session.test_data`. Raises DataError."""
    if data is None:
        return []
    return bundled_pairs("test") if data == BUNDLED else find_pairs(data, scale, "test")

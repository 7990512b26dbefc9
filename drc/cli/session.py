"""One run of one command: its folder, its settings, and what several steps need."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from drc.artifacts.run_folder import RunFolder
from drc.cli.display import Display, is_main_process
from drc.cli.errors import Interrupted
from drc.config import RunSettings
from drc.data.bundled import bundled_pairs
from drc.data.degrade import Degradation
from drc.data.folders import ImagePair, find_pairs
from drc.errors import DrcError, RunError, UsageError
from drc.evaluation.benchmark import BUNDLED
from drc.evaluation.inference import Inference
from drc.importance.base import Calibration, get_criterion
from drc.models.blind import KernelEstimator
from drc.models.dual import DualModel
from drc.models.resolve import open_network, open_saved
from drc.models.traits import Traits, get_traits
from drc.models.weights import load_dual
from drc.runtime import resolve_device, seed_everything
from drc.strategies.base import get_strategy


@dataclass
class Session:
    """What the steps of one command share.

    Attributes:
        settings: of this run.
        display: where logs and progress go.
        command: what the user typed, such as `drc prune`.
        folder: the run folder, once it is made.
        calibration: set by the first step that needs it.
    """

    settings: RunSettings
    display: Display
    command: str
    folder: RunFolder | None = None
    calibration: Calibration | None = None

    @property
    def run(self) -> RunFolder:
        if self.folder is None:
            raise RuntimeError("the run folder is made before the first step")
        return self.folder

    @cached_property
    def dense(self) -> nn.Module:
        """The network before compression. Raises UsageError, WeightsError and ModelError."""
        settings = self.settings
        seed_everything(settings.seed)  # every command must draw the same initial weights
        return open_network(settings.model, settings.weights, settings.scale, self.display)

    @property
    def traits(self) -> Traits:
        return get_traits(self.dense)

    @property
    def scale(self) -> int:
        return self.traits.scale

    @property
    def name(self) -> str:
        """What the run folder calls the network."""
        if self.settings.model is None:
            return self.traits.preset or type(self.dense).__name__
        return self.settings.model.rpartition(":")[2]

    def saved(self, path: Path) -> nn.Module:
        """A compressed network of this run. Raises WeightsError."""
        return open_saved(self.settings.model, path)

    @cached_property
    def train_pairs(self) -> list[ImagePair]:
        """The images for calibration and recovery. Raises DataError."""
        folder = self.settings.data.data
        return bundled_pairs() if folder is None else find_pairs(folder, self.scale)

    @property
    def test_data(self) -> str | None:
        """What to measure on, as `evaluate` takes it; None for nothing."""
        folder = self.settings.data.test_data
        return None if folder == "none" else folder or BUNDLED

    @cached_property
    def test_pairs(self) -> list[ImagePair]:
        """The images behind `test_data`. Raises DataError."""
        data = self.test_data
        if data is None:
            return []
        if data == BUNDLED:
            return bundled_pairs("test")
        return find_pairs(data, self.scale, "test")

    @property
    def degradation(self) -> Degradation | None:
        """What makes the LR crops for calibration and recovery; None for LR files or bicubic.

        Raises UsageError.
        """
        data = self.settings.data
        if data.degradation == "bicubic":
            return None
        return Degradation(data.degradation, self.scale, data.noise)

    @property
    def inference(self) -> Inference:
        """How test images go through the networks. Raises UsageError."""
        report = self.settings.report
        return Inference(report.self_ensemble, report.tile, report.overlap)

    def check(self) -> None:
        """Find out early, before hours of work, that an input cannot be used."""
        settings = self.settings
        resolve_device(settings.device)
        get_strategy(settings.search.strategy)
        get_criterion(settings.prune.importance)
        _ = self.inference, self.dense, self.degradation, self.train_pairs, self.test_pairs
        if self.traits.channels not in (1, 3):
            raise UsageError(
                f"folders hold RGB images and this network's have {self.traits.channels} channels; "
                "use drc.compress(model, loader) from Python, with batches of your own"
            )
        if isinstance(self.dense, KernelEstimator) and settings.finetune.kernel_weight:
            self._check_blur(self.dense.kernel_size)
        if settings.search.dual_weight or settings.finetune.dual_weight:
            DualModel(self.scale)  # refuses a scale that it cannot have
        if settings.dual is not None:
            load_dual(settings.dual, self.scale, self.traits.channels)

    def _check_blur(self, size: int) -> None:
        patch = self.settings.finetune.patch
        if patch < size:
            raise UsageError(
                f"crops of {patch}x{patch} LR pixels do not show the {size}x{size} blur kernels "
                f"that {self.name} estimates; set --patch (finetune.patch) to {size} or more, or "
                "finetune.kernel_weight to 0"
            )

    @property
    def lacks_blur(self) -> bool:
        """Whether a network that estimates blur is to learn from images that have none."""
        sharp = self.degradation is None and any(pair.lr is None for pair in self.train_pairs)
        return sharp and isinstance(self.dense, KernelEstimator)

    @contextmanager
    def step(self, name: str, goes_on: bool = False) -> Iterator[dict[str, Any]]:
        """Time a step and record it; the dict given is for its further facts.

        Args:
            name: as `steps.json` calls it.
            goes_on: add to the seconds that an interrupted attempt recorded.
        """
        earlier = self.run.read_steps().get(name, {}) if goes_on else {}
        start = time.perf_counter() - float(earlier.get("seconds", 0.0))
        facts: dict[str, Any] = {}
        self.display.log(f"{name} ...")
        finished = False
        try:
            yield facts
            finished = True
        except KeyboardInterrupt:
            raise Interrupted(self._how_to_go_on(name)) from None
        finally:
            seconds = round(time.perf_counter() - start, 3)
            record = {"seconds": seconds, "finished": finished, **facts}
            if finished:
                self.record(name, record)
                self.display.log(f"{name} took {seconds:.1f} s")
            else:
                with suppress(DrcError):  # the first error is the one to show
                    self.record(name, record)

    def record(self, name: str, facts: dict[str, Any]) -> None:
        if is_main_process():
            self.run.record_step(name, facts)

    def finished(self, name: str) -> bool:
        return bool(self.run.read_steps().get(name, {}).get("finished"))

    def _how_to_go_on(self, name: str) -> str:
        resume = "" if self.command in ("drc prune", "drc report") else " --resume"
        return (
            f"interrupted during {name}; go on with: {self.command}{resume} --run {self.run.path}"
        )


def need(path: Path, what: str, command: str) -> Path:
    """Return `path`, or say which command makes it. Raises RunError."""
    if not path.is_file():
        raise RunError(f"{path.parent} holds no {what} ({path.name}); run `{command}` first")
    return path

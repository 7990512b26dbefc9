"""One run of one command: its folder, its settings, and what several steps need."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from drc.cli.base_session import BaseSession
from drc.cli.display import is_main_process
from drc.cli.errors import Interrupted
from drc.core.distributed import on_first
from drc.core.errors import DrcError, RunError, UsageError
from drc.core.runtime import resolve_device
from drc.data.bundled import bundled_pairs
from drc.data.folders import ImagePair, find_pairs
from drc.evaluation.benchmark import BUNDLED
from drc.evaluation.inference import Inference
from drc.networks.blind import KernelEstimator
from drc.networks.dual import DualModel
from drc.networks.dual_weights import load_dual
from drc.opening import open_saved, open_teacher
from drc.rounds import default_rounds, first_ratio, first_steps, second_ratio
from drc.selection.calibration import Calibration
from drc.selection.criteria.base import get_criterion
from drc.selection.widths.base import get_strategy
from drc.settings.runs import RunSettings, SearchSettings
from drc.settings.training import RecoverySettings
from drc.store.plan import Plan
from drc.store.run_folder import RunFolder
from drc.training.distill import teacher_factor
from drc.training.feature_distill import find_places


@dataclass
class Session(BaseSession):
    """What the steps of one command share.

    Attributes:
        calibration: set by the first step that needs it.
        whole: the run of which this is the first round; None for a run of its own.
    """

    settings: RunSettings
    calibration: Calibration | None = None
    whole: Session | None = None

    @cached_property
    def network(self) -> nn.Module:
        """The network before compression. Raises UsageError, WeightsError and ModelError."""
        return super().network if self.whole is None else self.whole.network

    @property
    def rounds(self) -> int:
        """How many rounds the run takes."""
        is_new = self.command == "drc compress" and self.folder is None
        default = default_rounds(self.settings.search.ratio) if is_new else 1
        return self.settings.rounds or default

    def first_round(self) -> Session:
        """The session of the first of two rounds, in a folder inside this run's."""
        settings, run = self.settings, self.run.first_round
        ratio, steps = first_ratio(settings.search.ratio), first_steps(settings.recovery.steps)
        changes = {
            "rounds": 1,
            "search": settings.search.model_copy(update={"ratio": ratio}),
            "recovery": settings.recovery.model_copy(update={"steps": steps}),
        }
        first = Session(settings.model_copy(update=changes), self.display, self.command)
        first.whole = self
        new = run.path, self.label, self.scale, first.plain_settings()
        first.folder = on_first(lambda: run if run.steps_path.exists() else RunFolder.create(*new))
        return first

    @cached_property
    def base(self) -> nn.Module:
        """What search and pruning start from: the dense network, or what a first round left."""
        if self.rounds == 1:
            return self.network
        return self.saved(need(self.run.first_round.finetuned_path, "network", "drc compress"))

    @property
    def search(self) -> SearchSettings:
        """Settings of the search on `base`."""
        settings = self.settings.search
        if self.rounds == 1:
            return settings
        ratio = second_ratio(Plan.load(self.run.first_round.plan_path), settings.ratio)
        return settings.model_copy(update={"ratio": ratio})

    @property
    def steps_before(self) -> int:
        """Recovery steps that an earlier round has done. Raises UsageError."""
        return 0 if self.rounds == 1 else first_steps(self.settings.recovery.steps)

    @property
    def recovery(self) -> RecoverySettings:
        """Settings of the recovery of this round. Raises UsageError."""
        options = self.settings.recovery
        return options.model_copy(update={"steps": options.steps - self.steps_before})

    @cached_property
    def teacher(self) -> nn.Module:
        """What recovery learns from, a network of the same scale. Raises DrcError."""
        name = self.settings.recovery.teacher
        if name is None:
            return self.network
        if self.whole is not None:
            return self.whole.teacher
        teacher = open_teacher(name, self.scale, self.display)
        teacher_factor(self.traits, teacher)
        if self.settings.recovery.features:
            find_places(self.network, teacher)
        return teacher

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
        if self.rounds == 2 and self.command == "drc search":
            raise UsageError("a search is of one round; `drc compress` takes two")
        _ = self.recovery
        resolve_device(settings.device)
        get_strategy(settings.search.strategy)
        get_criterion(settings.prune.importance)
        get_criterion(settings.search.sensitivity)
        _ = self.inference, self.network, self.degradation, self.images, self.test_pairs
        if self.traits.channels not in (1, 3):
            raise UsageError(
                f"folders hold RGB images and this network's have {self.traits.channels} channels; "
                "use drc.compress(model, loader) from Python, with batches of your own"
            )
        if isinstance(self.network, KernelEstimator) and settings.recovery.kernel_weight:
            self._check_blur(self.network.kernel_size)
        if settings.search.dual_weight or settings.recovery.dual_weight:
            DualModel(self.scale)  # refuses a scale that it cannot have
        if settings.dual is not None:
            load_dual(settings.dual, self.scale, self.traits.channels)
        distils = settings.recovery.distill or settings.recovery.features
        if distils and self.command in ("drc compress", "drc finetune"):
            _ = self.teacher

    def _check_blur(self, size: int) -> None:
        patch = self.settings.recovery.patch
        if patch < size:
            raise UsageError(
                f"crops of {patch}x{patch} LR pixels do not show the {size}x{size} blur kernels "
                f"that {self.label} estimates; set --patch (recovery.patch) to {size} or more, or "
                "recovery.kernel_weight to 0"
            )

    @property
    def lacks_blur(self) -> bool:
        """Whether a network that estimates blur is to learn from images that have none."""
        sharp = self.degradation is None and any(pair.lr is None for pair in self.images)
        return sharp and isinstance(self.network, KernelEstimator)

    @contextmanager
    def step(self, name: str, goes_on: bool = False) -> Iterator[dict[str, Any]]:
        """Time and record a step, which all processes leave together; yields its further facts.

        Args:
            name: as `steps.json` calls it.
            goes_on: add to the seconds that an interrupted attempt recorded.
        """
        earlier = self.run.read_steps().get(name, {}) if goes_on else {}
        start = time.perf_counter() - float(earlier.get("seconds", 0.0))
        facts: dict[str, Any] = {}
        title = name if self.whole is None else f"round 1: {name}"
        self.display.log(f"{title} ...")
        finished = False
        try:
            yield facts
            finished = True
        except KeyboardInterrupt:
            raise Interrupted(self._how_to_go_on(name)) from None
        finally:
            seconds = round(time.perf_counter() - start, 3)
            with nullcontext() if finished else suppress(DrcError):  # the first error shows
                self.record(name, {"seconds": seconds, "finished": finished, **facts})
            if finished:
                self.display.log(f"{title} took {seconds:.1f} s")
                on_first(lambda: None)  # what it wrote is there for all

    def take_ratio(self, ratio: float) -> None:
        """Make `ratio`, one of several that were searched, that of the run from now on."""
        search = self.settings.search
        if ratio != search.ratio:
            search = search.model_copy(update={"ratio": ratio})
            self.settings = self.settings.model_copy(update={"search": search})
            if is_main_process():
                self.run.write_config(self.plain_settings())

    def record(self, name: str, facts: dict[str, Any]) -> None:
        if is_main_process():
            self.run.record_step(name, facts)

    def finished(self, name: str) -> bool:
        return bool(self.run.read_steps().get(name, {}).get("finished"))

    def _how_to_go_on(self, name: str) -> str:
        resume = "" if self.command in ("drc prune", "drc report") else " --resume"
        path = (self if self.whole is None else self.whole).run.path
        return f"interrupted during {name}; go on with: {self.command}{resume} --run {path}"


def test_images(data: str | None, scale: int) -> list[ImagePair]:
    """The images behind `Session.test_data`. Raises DataError."""
    if data is None:
        return []
    return bundled_pairs("test") if data == BUNDLED else find_pairs(data, scale, "test")


def need(path: Path, what: str, command: str) -> Path:
    """Return `path`, or say which command makes it. Raises RunError."""
    if not path.is_file():
        raise RunError(f"{path.parent} holds no {what} ({path.name}); run `{command}` first")
    return path

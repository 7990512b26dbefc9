"""One compression from Python: what its rounds share, and the way through a round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from drc.core.runtime import Progress
from drc.networks.dual import AnyDual
from drc.pipeline import Loader, check_goal, cut_by_plan, plan_widths
from drc.rounds import TWO_ROUNDS, first_ratio, first_steps, joined, second_ratio
from drc.selection.calibration import calibrate
from drc.settings.runs import PruneSettings, SearchSettings
from drc.settings.training import RecoverySettings
from drc.store.plan import Plan
from drc.training.loop import finetune

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Compressed:
    """What one round, or two, made.

    Attributes:
        plan: from the network that was given to the network that was made.
        pruned: right after the last cut.
        recovered: after recovery; None without one.
    """

    plan: Plan
    pruned: nn.Module
    recovered: nn.Module | None

    @property
    def model(self) -> nn.Module:
        return self.pruned if self.recovered is None else self.recovered


@dataclass
class Job:
    """Search, prune and recover, once or twice.

    Attributes:
        loader: batches for calibration and recovery.
        importance: the criterion that ranks the channels.
        reconstruct: whether to refit the layers that read removed channels.
        teacher: what recovery learns from, in both rounds.
        dual: the dual model; where it is None, the first calibration fits one.
        recovery: settings of the recovery, less its steps.
        device: that of this process.
        seed, progress: as for `drc.compress`.
        notes: what a reader of the report should know.
        seconds: step -> the wall time it took.
    """

    loader: Loader
    importance: str
    reconstruct: bool
    teacher: nn.Module
    dual: AnyDual | None
    recovery: RecoverySettings
    device: torch.device
    seed: int
    progress: Progress | None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def once(
        self, model: nn.Module, settings: SearchSettings, steps: int, title: str = "",
        goal: SearchSettings | None = None,
    ) -> Compressed:  # fmt: skip
        """One round.

        Args:
            model: the network to compress.
            settings: of the search.
            steps: of the recovery; 0 leaves it out.
            title: before the names of the steps.
            goal: what a later round is to reach.

        Raises:
            BudgetError: no widths meet the budget, or that of `goal`.
        """
        calibration = self._timed(
            f"{title}calibrate",
            lambda: calibrate(
                model, self.loader, self.dual, settings, self.device, self.seed, self.progress,
                self.notes,
            ),
        )  # fmt: skip
        self.dual = calibration.dual
        if goal is not None:
            check_goal(calibration, goal)
        plan = self._timed(
            f"{title}search", lambda: plan_widths(model, calibration, settings, self.notes)
        )
        ranking = PruneSettings(importance=self.importance, reconstruct=self.reconstruct)
        pruned = self._timed(
            f"{title}prune",
            lambda: cut_by_plan(model, calibration, plan, ranking),
        )
        recovered = None
        if steps:
            recovered = self._timed(f"{title}finetune", lambda: self._recover(pruned, steps))
        return Compressed(plan, pruned, recovered)

    def twice(self, model: nn.Module, settings: SearchSettings, steps: int) -> Compressed:
        """Two rounds; see `drc.rounds`. Raises UsageError for fewer than two steps."""
        part = settings.model_copy(update={"ratio": first_ratio(settings.ratio)})
        early = first_steps(steps)
        first = self.once(model, part, early, "round 1 ", settings)
        rest = settings.model_copy(update={"ratio": second_ratio(first.plan, settings.ratio)})
        second = self.once(first.model, rest, steps - early)
        plan = joined(first.plan, second.plan, settings.ratio)
        self.notes.append(TWO_ROUNDS)
        return Compressed(plan, second.pruned, second.recovered)

    def _recover(self, pruned: nn.Module, steps: int) -> nn.Module:
        return finetune(
            pruned, self.loader, teacher=self.teacher, dual=self.dual,
            settings=self.recovery.model_copy(update={"steps": steps}), device=self.device,
            seed=self.seed, progress=self.progress,
        )  # fmt: skip

    def _timed(self, name: str, work: Callable[[], Outcome]) -> Outcome:
        start = time.perf_counter()
        result = work()
        self.seconds[name] = {"seconds": round(time.perf_counter() - start, 3)}
        return result


__all__ = ["Compressed", "Job"]

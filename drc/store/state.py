"""The state of one compression, in memory or in a run folder, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from drc.core.errors import RunError, UsageError
from drc.data.inventory import Source
from drc.networks.dual import AnyDual
from drc.store.plan import Plan
from drc.store.run_folder import STEPS

Facts = Mapping[str, Any]
"""Plain values by name."""

_MADE = {"prune": "pruned network", "finetune": "network"}


class Store(ABC):
    """What the steps of a compression leave for each other.

    A step is recorded as begun before it starts, when what older attempts at it and at later
    steps have left is out of the way, and as finished once its result is kept.
    """

    @abstractmethod
    def records(self) -> dict[str, dict[str, Any]]:
        """Step -> its seconds, whether it is `finished`, and further facts."""

    @abstractmethod
    def begin(self, step: str, facts: Facts, settings: Facts, goes_on: bool = False) -> None:
        """Record that a step begins under these settings; where it `goes_on`, files stay."""

    @abstractmethod
    def finish(self, step: str, facts: Facts) -> None:
        """Record that the step has come to its end: its result is kept."""

    @abstractmethod
    def abandon(self, step: str, facts: Facts, resumable: bool) -> None:
        """Record that the step was cut short.

        What it was to replace comes back, settings too, unless it is `resumable`.
        """

    @abstractmethod
    def save_plans(self, plans: Sequence[Plan], several: bool) -> None:
        """Keep the plans of a search, for `several` ratios or one; the first is the run's."""

    @abstractmethod
    def choose(self, plan: Plan) -> None:
        """Make a plan that of the run."""

    @abstractmethod
    def plan(self, ratio: float | None = None) -> Plan:
        """The plan of the run, or the one for a ratio. Raises RunError and UsageError."""

    @abstractmethod
    def save_dual(self, dual: AnyDual) -> None:
        """Keep the dual model."""

    @abstractmethod
    def dual(self, scale: int, channels: int) -> AnyDual | None:
        """The dual model that was kept, or None."""

    @abstractmethod
    def save_network(self, step: str, network: nn.Module, provenance: Facts) -> None:
        """Keep the network that `prune` or `finetune` made."""

    @abstractmethod
    def network(self, step: str) -> nn.Module:
        """The network that a finished step made. Raises RunError."""

    def finished(self, step: str) -> bool:
        """Whether the step's last attempt came to its end."""
        return bool(self.records().get(step, {}).get("finished"))

    @abstractmethod
    def save_settings(self, settings: Facts) -> None:
        """Keep settings, plain values, that a step has changed."""

    @abstractmethod
    def save_report(self, json: str, markdown: str) -> None:
        """Keep the report."""

    @abstractmethod
    def list_images(self, sources: Sequence[Source], goes_on: bool) -> None:
        """Keep the list of the training images, or compare. Raises RunError."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return "this compression"

    def plans(self, ratios: Sequence[float]) -> tuple[list[Plan], dict[float, str]]:
        """The plans for these ratios, and why others have none. Raises RunError."""
        if len(ratios) == 1:
            return [self.plan()], {}
        found, missed = [], {}
        for ratio in ratios:
            try:
                found.append(self.plan(ratio))
            except UsageError as error:
                missed[ratio] = str(error)
        return found, missed

    def files(self) -> dict[str, Path]:
        """Name -> path of what lies on disk, or will."""
        return {}

    def listed_files(self) -> dict[str, str]:
        """What a report names: the files that are there, and itself."""
        unlisted = ("checkpoint", "blur kernels")
        files = {n: path for n, path in self.files().items() if n not in unlisted}
        return {n: str(path) for n, path in files.items() if path.exists() or "report" in n}

    def unfinished(self) -> bool:
        """Whether there is the checkpoint of a recovery that has not come to its end."""
        return False


class MemoryStore(Store):
    """State that ends with the process."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Any]] = {}
        self._plans: list[Plan] = []
        self._dual: AnyDual | None = None
        self._networks: dict[str, nn.Module] = {}

    def records(self) -> dict[str, dict[str, Any]]:
        return self._records

    def begin(self, step: str, facts: Facts, settings: Facts, goes_on: bool = False) -> None:
        for name in STEPS[STEPS.index(step) :]:
            self._records.pop(name, None)
            self._networks.pop(name, None)
        self._records[step] = {**facts, "finished": False}

    def finish(self, step: str, facts: Facts) -> None:
        self._records[step] = {**facts, "finished": True}

    def abandon(self, step: str, facts: Facts, resumable: bool) -> None:
        self._records[step] = {**facts, "finished": False}

    def save_plans(self, plans: Sequence[Plan], several: bool) -> None:
        self._plans = list(plans)

    def choose(self, plan: Plan) -> None:
        self._plans = [plan, *(other for other in self._plans if other != plan)]

    def plan(self, ratio: float | None = None) -> Plan:
        for plan in self._plans:
            if ratio in (None, plan.budget.ratio):
                return plan
        raise RunError("there is no such plan yet; search first")

    def save_dual(self, dual: AnyDual) -> None:
        self._dual = dual

    def dual(self, scale: int, channels: int) -> AnyDual | None:
        return self._dual

    def save_network(self, step: str, network: nn.Module, provenance: Facts) -> None:
        self._networks[step] = network

    def network(self, step: str) -> nn.Module:
        if step not in self._networks:
            raise RunError(f"there is no network of the step {step} yet")
        return self._networks[step]

    def save_settings(self, settings: Facts) -> None:
        """Whoever holds the driver holds them."""

    def save_report(self, json: str, markdown: str) -> None:
        """Whoever asked for the report has it."""

    def list_images(self, sources: Sequence[Source], goes_on: bool) -> None:
        """Nothing of this store is gone on with later."""

"""Search strategies: how many channels each group keeps. A strategy is one callable in one file."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from drc.core.errors import BudgetError, UsageError, unknown_name
from drc.graph.cost import Cost
from drc.graph.groups import Group
from drc.selection.criteria.base import Calibration
from drc.settings.runs import SearchSettings

TOLERANCE = 0.01
"""A plan may stay under its budget by this fraction at most."""


@dataclass
class Problem:
    """What a strategy has to solve.

    Attributes:
        calibration: network, groups and data.
        cost: the cost that the budget limits.
        limit: the cost allowed.
        options: per group, in graph order, the widths it may take, ascending; the last is dense.
        what: the unit of the budget, for messages: "parameters", "MACs" or "latency".
        settings: of the search, for strategies that have some of their own.
        expected_loss: set by strategies that estimate what their widths add to the loss.
    """

    calibration: Calibration
    cost: Cost
    limit: int
    options: list[np.ndarray]
    what: str = "parameters"
    settings: SearchSettings = field(default_factory=SearchSettings)
    expected_loss: float | None = None

    @property
    def dense(self) -> np.ndarray:
        return np.asarray([option[-1] for option in self.options], dtype=np.float64)

    @property
    def narrowest(self) -> np.ndarray:
        return np.asarray([option[0] for option in self.options], dtype=np.float64)

    def check_reachable(self) -> None:
        """Raise BudgetError, with the reachable range, when even the narrowest widths cost more."""
        before, least = self.cost(self.dense), self.cost(self.narrowest)
        if all(len(option) == 1 for option in self.options):
            frozen = self.calibration.graph.frozen
            reasons = "; ".join(f"{f.name}: {f.reason}" for f in frozen[:3])
            raise BudgetError(
                "no channel of this network can be removed with this rounding and these minimum "
                f"widths, so 0% can be reached ({reasons or 'every layer is narrow already'})"
            )
        if least > self.limit:
            asked, reach = 1 - self.limit / before, 1 - least / before
            raise BudgetError(
                f"no plan removes {asked:.1%} of the {self.what}: with this rounding and these "
                f"minimum widths 0% to {reach:.1%} can be reached; lower the ratio, --round-to "
                "or --min-width"
            )


Searcher = Callable[[Problem], np.ndarray]
"""Returns one width per group, in graph order, whose cost is within the limit."""

_STRATEGIES: dict[str, Searcher] = {}

DATA_FREE: set[str] = set()
"""Names of the strategies that look at no images."""


def register(name: str, data_free: bool = False) -> Callable[[Searcher], Searcher]:
    """Register the decorated strategy under the name users type."""

    def add(searcher: Searcher) -> Searcher:
        if data_free:
            DATA_FREE.add(name)
        if name in _STRATEGIES:
            raise ValueError(f"a strategy named {name!r} is already registered")
        _STRATEGIES[name] = searcher
        return searcher

    return add


def list_strategies() -> list[str]:
    _import_strategies()
    return sorted(_STRATEGIES)


def get_strategy(name: str) -> Searcher:
    """The strategy called `name`. Raises UsageError, which offers the nearest one."""
    _import_strategies()
    if name not in _STRATEGIES:
        raise UsageError(unknown_name("search strategy", name, _STRATEGIES))
    return _STRATEGIES[name]


def solve(name: str, problem: Problem) -> dict[str, int]:
    """Search widths by the named strategy; returns group name -> width.

    Raises:
        UsageError: no such strategy.
        BudgetError: no widths meet the limit.
    """
    searcher = get_strategy(name)
    problem.check_reachable()
    widths = searcher(problem)
    return {n: int(w) for n, w in zip(problem.cost.names, widths, strict=True)}


def width_options(group: Group, round_to: int, min_width: int) -> np.ndarray:
    """The widths a group may take, in atoms, ascending; the last is its size.

    Every tensor keeps a multiple of `round_to` channels and at least `min_width`. An atom of a
    group with heads is several channels in each of them.
    """
    channels = math.gcd(*(part.indices.shape[1] for part in group.slices))
    step = round_to // math.gcd(round_to, channels)
    widths = range(step, group.size, step)
    return np.asarray([*(w for w in widths if w * channels >= min_width), group.size], np.int64)


@cache
def _import_strategies() -> None:
    package = importlib.import_module("drc.selection.widths")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"drc.selection.widths.{module.name}")

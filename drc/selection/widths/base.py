"""Search strategies: how many channels each group keeps. A strategy is one function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from drc.core.distributed import is_joined
from drc.core.errors import BudgetError
from drc.core.registry import Registry
from drc.graph.cost import Cost
from drc.graph.groups import Group
from drc.selection.calibration import Calibration
from drc.selection.criteria.base import score
from drc.settings import SearchSettings

TOLERANCE = 0.01
"""A plan may stay under its budget by this fraction at most."""


@dataclass(frozen=True)
class Problem:
    """What a strategy has to solve.

    Attributes:
        calibration: network, groups and data.
        cost: the cost that the budget limits.
        limit: the cost allowed.
        options: per group, in graph order, the widths it may take, ascending; the last is dense.
        what: the unit of the budget, for messages: "parameters", "MACs" or "latency".
        settings: of the search, for strategies that have some of their own.
    """

    calibration: Calibration
    cost: Cost
    limit: int
    options: list[np.ndarray]
    what: str = "parameters"
    settings: SearchSettings = field(default_factory=SearchSettings)

    @property
    def dense(self) -> np.ndarray:
        return np.asarray([option[-1] for option in self.options], dtype=np.float64)

    @property
    def narrowest(self) -> np.ndarray:
        return np.asarray([option[0] for option in self.options], dtype=np.float64)

    def named(self, widths: Iterable[float]) -> dict[str, int]:
        """Widths in graph order, by the names of their groups."""
        groups = self.calibration.graph.groups
        return {group.name: int(width) for group, width in zip(groups, widths, strict=True)}

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


@dataclass(frozen=True)
class Solution:
    """What a strategy finds.

    Attributes:
        widths: one per group, in graph order; their cost is within the limit.
        expected_loss: what the widths are estimated to add to the loss; None for no estimate.
    """

    widths: np.ndarray
    expected_loss: float | None = None


Searcher = Callable[[Problem], Solution]


@dataclass(frozen=True)
class Strategy:
    """A registered search strategy.

    Attributes:
        search: the function.
        data_free: it looks at no images.
        by_scores: it prices widths by the scores of `settings.sensitivity`.
    """

    search: Searcher
    data_free: bool = False
    by_scores: bool = False


_STRATEGIES: Registry[Strategy] = Registry("search strategy", "drc.selection.widths")
list_strategies = _STRATEGIES.names
get_strategy = _STRATEGIES.get


def register(
    name: str, data_free: bool = False, by_scores: bool = False
) -> Callable[[Searcher], Searcher]:
    """Register the decorated function as a strategy, under the name users type.

    Args:
        name: that name.
        data_free: it looks at no images.
        by_scores: it prices widths by the scores of `settings.sensitivity`, which several processes
            then find together; a strategy itself runs in the first alone.
    """

    def add(searcher: Searcher) -> Searcher:
        _STRATEGIES.add(name, Strategy(searcher, data_free, by_scores))
        return searcher

    return add


def score_together(calibration: Calibration, settings: SearchSettings) -> None:
    """Let several processes find the scores that the first will solve by; alone there is no need.

    Raises:
        DrcError: as the criterion raises it.
    """
    if is_joined() and get_strategy(settings.strategy).by_scores:
        score(settings.sensitivity, calibration)


def solve(name: str, problem: Problem) -> Solution:
    """Search widths by the named strategy.

    Raises:
        UsageError: no such strategy.
        BudgetError: no widths meet the limit.
    """
    strategy = get_strategy(name)
    problem.check_reachable()
    return strategy.search(problem)


def width_options(group: Group, round_to: int, min_width: int) -> np.ndarray:
    """The widths a group may take, in atoms, ascending; the last is its size.

    Every tensor keeps a multiple of `round_to` channels and at least `min_width`. An atom of a
    group with heads is several channels in each of them.
    """
    channels = math.gcd(*(part.indices.shape[1] for part in group.slices))
    step = round_to // math.gcd(round_to, channels)
    widths = range(step, group.size, step)
    return np.asarray([*(w for w in widths if w * channels >= min_width), group.size], np.int64)

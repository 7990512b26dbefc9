"""The methods that are compared: how widths are found, channels ranked, layers refitted.

The papers' search trains for 2,500 steps and their ranking takes tens of thousands of passes. Here
both are cut short, to the settings below, which every row of theirs repeats: beyond that they
would take most of the time of the whole comparison.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from drc.core.errors import UsageError
from drc.selection.criteria.base import get_criterion
from drc.selection.widths.base import get_strategy
from drc.settings import PruneSettings, SearchSettings

DENSE = "dense"
"""Not a method: the network as it is, with the recovery that the others get."""

SEARCH: dict[str, dict[str, Any]] = {"dual_darts": {"darts_steps": 100, "darts_batch": 8}}
"""Settings of single strategies; the others have the default ones."""

RANKING: dict[str, dict[str, Any]] = {"dual_greedy": {"greedy_steps": 1, "greedy_batch": 4}}
"""Settings of single criteria."""

_WITH_UNIFORM_WIDTHS = (
    "l1", "l2", "fpgm", "group_norm", "random", "taylor", "fisher", "dual_taylor", "dual_greedy",
)  # fmt: skip


@dataclass(frozen=True)
class Method:
    """One way to compress.

    Attributes:
        strategy: finds the widths.
        importance: ranks the channels.
        reconstruct: refit the layers that read pruned channels.
    """

    strategy: str
    importance: str
    reconstruct: bool = False

    @property
    def search(self) -> dict[str, Any]:
        """Settings of the search that are this method's own."""
        if self.strategy == "allocate":
            return {"sensitivity": self.importance}
        return SEARCH.get(self.strategy, {})

    @property
    def ranking(self) -> dict[str, Any]:
        """Settings of the ranking that are this method's own."""
        return RANKING.get(self.importance, {})

    def recipe(self) -> dict[str, Any]:
        """What a row says of its method."""
        return {**asdict(self), **self.search, **self.ranking}


_DEFAULT = (SearchSettings().strategy, PruneSettings().importance)

METHODS = {
    "ours": Method(*_DEFAULT, reconstruct=True),
    "ours_no_refit": Method(*_DEFAULT),
    "allocate+dual_taylor": Method("allocate", "dual_taylor"),
    "dual_darts+dual_greedy": Method("dual_darts", "dual_greedy"),
    **{f"uniform+{name}": Method("uniform", name) for name in _WITH_UNIFORM_WIDTHS},
    **{f"uniform_inner+{name}": Method("uniform_inner", name) for name in ("l1", "taylor")},
    "uniform_inner+taylor+refit": Method("uniform_inner", "taylor", reconstruct=True),
}


def find_method(name: str) -> Method:
    """The method of a name: one of `METHODS`, or `STRATEGY+IMPORTANCE`, or that with `+refit`.

    Raises:
        UsageError: the name is neither, or drc has no such strategy or criterion.
    """
    parts = name.split("+")
    refit = parts[-1] == "refit"
    if name not in METHODS and len(parts) - refit != 2:
        raise UsageError(
            f"{name} is no method; use {', '.join((DENSE, *METHODS))}, STRATEGY+IMPORTANCE, or "
            "STRATEGY+IMPORTANCE+refit"
        )
    method = METHODS.get(name) or Method(parts[0], parts[1], refit)
    get_strategy(method.strategy), get_criterion(method.importance)
    return method

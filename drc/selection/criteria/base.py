"""Criteria: how much each channel matters. A criterion is one function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from drc.core.distributed import is_joined, on_first, size
from drc.core.errors import UsageError
from drc.core.registry import Registry
from drc.selection.calibration import Calibration, Scores
from drc.settings import PruneSettings


@dataclass(frozen=True)
class Ranking:
    """What channels are ranked for.

    Attributes:
        widths: how many atoms of each group will stay; None where that is open.
        settings: of the ranking, for criteria that have some of their own.
    """

    widths: dict[str, int] | None = None
    settings: PruneSettings = field(default_factory=PruneSettings)


Scorer = Callable[[Calibration, Ranking], Scores]


@dataclass(frozen=True)
class Criterion:
    """A registered criterion.

    Attributes:
        score: the function.
        data_free: it looks at no images.
        by_widths: its scores depend on the `Ranking`.
        by_crops: it sums over crops, which several processes share.
    """

    score: Scorer
    data_free: bool = False
    by_widths: bool = False
    by_crops: bool = False


_CRITERIA: Registry[Criterion] = Registry("importance criterion", "drc.selection.criteria")
list_criteria = _CRITERIA.names
get_criterion = _CRITERIA.get


def register(
    name: str, data_free: bool = False, by_widths: bool = False, by_crops: bool = False
) -> Callable[[Scorer], Scorer]:
    """Register the decorated function as a criterion, under the name users type.

    Args:
        name: that name.
        data_free: it looks at no images.
        by_widths: its scores depend on the `Ranking`, so each is scored anew.
        by_crops: it takes its crops from `gate_gradients` and adds up what they show over all
            processes; any other criterion runs in the first process alone.
    """

    def add(scorer: Scorer) -> Scorer:
        _CRITERIA.add(name, Criterion(scorer, data_free, by_widths, by_crops))
        return scorer

    return add


def score(name: str, calibration: Calibration, ranking: Ranking | None = None) -> Scores:
    """Score every atom of every group by the named criterion, once per calibration.

    A criterion that depends on the ranking is asked once for each. Several processes call this
    together, and all get the same; the first may also call it on its own.

    Raises:
        UsageError: no such criterion, or scores of another shape than the groups have.
    """
    criterion, ranking = get_criterion(name), ranking or Ranking()
    key = (name, *(_key(ranking) if criterion.by_widths else ()))
    if key in calibration.scores:
        return calibration.scores[key]
    if criterion.by_crops:
        found = criterion.score(calibration, ranking)
    else:
        found = on_first(lambda: criterion.score(calibration, ranking))
    for group in calibration.graph.groups:
        shape = np.shape(found.get(group.name, ()))
        if shape != (group.blocks, group.size):
            raise UsageError(
                f"the importance criterion {name} gives scores of shape {shape} for group "
                f"{group.name}; it has {group.blocks} blocks of {group.size} channels"
            )
    if size() > 1 or not is_joined():  # else the others, who wait, would not have it later
        calibration.scores[key] = found
    return found


def _key(ranking: Ranking) -> tuple:
    widths = None if ranking.widths is None else tuple(sorted(ranking.widths.items()))
    return widths, ranking.settings


def keep_best(scores: Scores, widths: dict[str, int]) -> dict[str, list[list[int]]]:
    """Keep sets: the `widths[g]` best atoms of every block, ascending; ties go to the first."""
    keep = {}
    for name, width in widths.items():
        order = np.argsort(-scores[name], axis=1, kind="stable")
        keep[name] = np.sort(order[:, :width], axis=1).tolist()
    return keep


def loss_of_removing(scores: np.ndarray) -> np.ndarray:
    """Summed score of the worst channels of every block, by how many go, `(atoms + 1,)`."""
    worst_first = np.sort(scores, axis=1).sum(0)
    return np.concatenate(([0.0], np.cumsum(worst_first)))

"""Criteria: how much each channel matters. A criterion is one callable in one file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from torch import Tensor, nn

from drc.core.distributed import helped
from drc.core.errors import UsageError, unknown_name
from drc.core.runtime import Progress
from drc.graph.groups import ChannelGraph
from drc.networks.dual import AnyDual
from drc.networks.traits import get_traits
from drc.settings.runs import PruneSettings

Scores = dict[str, np.ndarray]
"""Group name -> scores `(blocks, atoms)` float64; higher is kept longer. Every block of a group
(a head, say) keeps its own best channels."""


@dataclass
class Calibration:
    """What a criterion may look at; it never sees the test set.

    Attributes:
        model: the dense network.
        graph: its channel groups.
        batches: `(lr, hr)` in the network's range, on its device; can be iterated again.
        dual: the dual model of the loss, or None for the primal part alone.
        patches: number of crops to look at.
        dual_weight: lambda.
        seed: for criteria that draw numbers.
        progress: told about every crop.
        widths: how many atoms of each group will stay, where that is decided already.
        crop_passes: crops that went forward and backward so far, in whichever process of the
            job; whoever sends them adds them.
        settings: of the ranking, for criteria that have some of their own.
    """

    model: nn.Module
    graph: ChannelGraph
    batches: Iterable[tuple[Tensor, Tensor]]
    dual: AnyDual | None = None
    patches: int = 64
    dual_weight: float = 0.1
    seed: int = 0
    progress: Progress | None = None
    widths: dict[str, int] | None = None
    crop_passes: int = 0
    settings: PruneSettings = field(default_factory=PruneSettings)
    cache: dict[str, Scores] = field(default_factory=dict, repr=False)

    @cached_property
    def value_range(self) -> float:
        return get_traits(self.model).value_range


Criterion = Callable[[Calibration], Scores]

_CRITERIA: dict[str, Criterion] = {}

DATA_FREE: set[str] = set()
"""Names of the criteria that look at no images."""

BY_WIDTHS: set[str] = set()
"""Names of the criteria whose scores depend on how many atoms will stay."""

BY_CROPS: set[str] = set()
"""Names of the criteria that sum over crops, which several processes deal among themselves."""


def register(
    name: str, data_free: bool = False, by_widths: bool = False, by_crops: bool = False
) -> Callable[[Criterion], Criterion]:
    """Register the decorated criterion under the name users type.

    Args:
        name: that name.
        data_free: it looks at no images.
        by_widths: its scores depend on `calibration.widths`.
        by_crops: it takes its crops from `gate_gradients` and adds up what they tell over all
            processes; any other criterion runs in the first process alone.
    """

    def add(criterion: Criterion) -> Criterion:
        if data_free:
            DATA_FREE.add(name)
        if by_widths:
            BY_WIDTHS.add(name)
        if by_crops:
            BY_CROPS.add(name)
        if name in _CRITERIA:
            raise ValueError(f"a criterion named {name!r} is already registered")
        _CRITERIA[name] = criterion
        return criterion

    return add


def list_criteria() -> list[str]:
    _import_criteria()
    return sorted(_CRITERIA)


def get_criterion(name: str) -> Criterion:
    """The criterion called `name`. Raises UsageError, which offers the nearest one."""
    _import_criteria()
    if name not in _CRITERIA:
        raise UsageError(unknown_name("importance criterion", name, _CRITERIA))
    return _CRITERIA[name]


def score(name: str, calibration: Calibration) -> Scores:
    """Score every atom of every group by the named criterion, once per calibration.

    A criterion that depends on the widths is asked once for each.

    Raises:
        UsageError: no such criterion.
    """
    criterion = get_criterion(name)
    place = f"{name} {calibration.widths}" if name in BY_WIDTHS else name
    if place not in calibration.cache:
        if name in BY_CROPS:
            request = (name, calibration.widths, calibration.settings)
            found = helped(lambda: criterion(calibration), *request)
        else:
            found = criterion(calibration)
        calibration.cache[place] = found
        for group in calibration.graph.groups:
            shape = np.shape(found.get(group.name, ()))
            if shape != (group.blocks, group.size):
                raise UsageError(
                    f"the importance criterion {name} gives scores of shape {shape} for group "
                    f"{group.name}; it has {group.blocks} blocks of {group.size} channels"
                )
    return calibration.cache[place]


def helper(calibration: Calibration) -> Callable[..., object]:
    """What the other processes do for `score` in the first: the same, with a calibration alike."""

    def help(name: str, widths: dict[str, int] | None, settings: PruneSettings) -> None:
        calibration.widths, calibration.settings = widths, settings
        get_criterion(name)(calibration)

    return help


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


@cache
def _import_criteria() -> None:
    package = importlib.import_module("drc.selection.criteria")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"drc.selection.criteria.{module.name}")

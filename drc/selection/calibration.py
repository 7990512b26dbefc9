"""What search and ranking look at: the dense network, its groups, crops and the dual model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from drc.core.runtime import Progress, resolve_device, seed_everything
from drc.data.batches import BatchReader
from drc.graph.groups import ChannelGraph
from drc.graph.inputs import example_input
from drc.graph.trace import trace
from drc.networks.copying import copy_of
from drc.networks.dual import AnyDual
from drc.networks.traits import get_traits
from drc.selection.crops import Batch, single_crops
from drc.settings import SearchSettings

Scores = dict[str, np.ndarray]
"""Group name -> scores `(blocks, atoms)` float64; higher is kept longer. Every block of a group
(a head, say) keeps its own best channels."""


@dataclass
class CropPasses:
    """Counts the crops that went forward and backward, in whichever process of the job."""

    count: int = 0

    def add(self, crops: int) -> None:
        self.count += crops


@dataclass(frozen=True)
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
        progress: called after every crop.
        passes: counts the crops; whoever sends them through the network adds them.
        scores: what was scored already; `drc.selection.criteria.base.score` reads and fills it.
    """

    model: nn.Module
    graph: ChannelGraph
    batches: Iterable[Batch]
    dual: AnyDual | None = None
    patches: int = 64
    dual_weight: float = 0.1
    seed: int = 0
    progress: Progress | None = None
    passes: CropPasses = field(default_factory=CropPasses)
    scores: dict[tuple, Scores] = field(default_factory=dict, repr=False)

    @property
    def value_range(self) -> float:
        return get_traits(self.model).value_range

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def crops(self) -> Iterator[Batch]:
        """All crops, one by one. Raises DataError when there are none."""
        return single_crops(self.batches, self.patches)


def calibrate(
    model: nn.Module,
    loader: Iterable[Any],
    dual: AnyDual | None,
    settings: SearchSettings,
    device: str | torch.device,
    seed: int,
    progress: Progress | None = None,
) -> Calibration:
    """Trace a copy of the network and bring data and dual model together."""
    where = resolve_device(device)
    seed_everything(seed)
    traits = get_traits(model)
    reader = BatchReader(loader, traits.scale, traits.value_range, where, channels=traits.channels)
    twin = copy_of(model).to(where).eval()
    return Calibration(
        model=twin,
        graph=trace(twin, example_input(twin, traits.channels)),
        batches=reader,
        dual=copy_of(dual).to(where).eval() if dual is not None else None,
        patches=settings.patches,
        dual_weight=settings.dual_weight,
        seed=seed,
        progress=progress,
    )

"""Magnitude importance (Li et al., ICLR 2017): channels with small weights go first."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from drc.graph.groups import Group, Slice
from drc.selection.criteria.base import Calibration, Scores, register


@register("l1", data_free=True)
def l1(calibration: Calibration) -> Scores:
    """Mean absolute weight over the slices that write each atom, biases left out."""
    return mean_written_power(calibration, 1)


def mean_written_power(calibration: Calibration, power: int) -> Scores:
    """Mean of |w| to a power over the weights that write each atom, biases left out."""
    parameters = dict(calibration.model.named_parameters())
    scores = {}
    for group in calibration.graph.groups:
        total = np.zeros((group.blocks, group.size))
        count = np.zeros((group.blocks, 1))
        for part in writing_slices(group):
            weight = parameters.get(part.tensor)
            if weight is None or weight.ndim < 2:
                continue
            add_powers(total, part, weight, power)
            np.add.at(count, part.block, weight.numel() // weight.shape[part.dim])
        scores[group.name] = total / np.maximum(1, count)
    return scores


def add_powers(total: np.ndarray, part: Slice, weight: Tensor, power: int) -> None:
    """Add to `total`, `(blocks, atoms)`, the sums of |w| to a power over the part's indices."""
    rest = [d for d in range(weight.ndim) if d != part.dim]
    powers = weight.detach().abs() ** power
    sums = (powers.sum(rest) if rest else powers).double().cpu().numpy()
    np.add.at(total, part.block, sums[part.indices].T)


def writing_slices(group: Group) -> list[Slice]:
    """The slices that write the channels; all of them where none is marked as a reader."""
    return [part for part in group.slices if not part.read]

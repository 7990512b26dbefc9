"""Importance by the geometric median (He et al., CVPR 2019): what others can replace goes first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from drc.graph.groups import Group
from drc.selection.criteria.base import Calibration, Scores, register
from drc.selection.criteria.l1 import writing_slices


@register("fpgm", data_free=True)
def fpgm(calibration: Calibration) -> Scores:
    """Sum of the Euclidean distances of each atom's filter to those of the others in its block.

    The filter of an atom is all the weights that write it, end to end, biases left out.
    """
    parameters = dict(calibration.model.named_parameters())
    scores = {}
    for group in calibration.graph.groups:
        blocks = [_filters(group, block, parameters) for block in range(group.blocks)]
        distances = [torch.cdist(filters, filters).sum(1) for filters in blocks]
        scores[group.name] = np.stack([total.cpu().numpy() for total in distances])
    return scores


def _filters(group: Group, block: int, parameters: dict[str, nn.Parameter]) -> Tensor:
    """The filters of one block, `(atoms, weights)`, float64."""
    rows = [torch.zeros(group.size, 1, dtype=torch.float64)]
    for part in writing_slices(group):
        weight = parameters.get(part.tensor)
        indices = part.indices[:, part.block == block]
        if weight is not None and weight.ndim >= 2 and indices.size:
            found = weight.detach().movedim(part.dim, 0).flatten(1).double().cpu()
            rows.append(found[torch.from_numpy(indices)].flatten(1))
    return torch.cat(rows, 1)

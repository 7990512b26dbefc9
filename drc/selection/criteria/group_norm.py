"""Group norm importance (DepGraph, Fang et al., CVPR 2023): the weights of all coupled layers."""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from drc.graph.groups import Slice
from drc.selection.criteria.base import Calibration, Scores, register
from drc.selection.criteria.l1 import add_powers

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


@register("group_norm", data_free=True)
def group_norm(calibration: Calibration) -> Scores:
    """Summed squares of the weights that write or read each atom, over the mean of its group.

    As Torch-Pruning's GroupMagnitudeImportance has it: convolutions, linear layers and the scales
    of norms count, biases do not. Depthwise filters count here too, as the paper's formula says.
    """
    model = calibration.model
    parameters = dict(model.named_parameters())
    scores = {}
    for group in calibration.graph.groups:
        total = np.zeros((group.blocks, group.size))
        for part in group.slices:
            if part.tensor in parameters and _counts(model, part, parameters[part.tensor]):
                add_powers(total, part, parameters[part.tensor], 2)
        scores[group.name] = total / (total.mean() or 1.0)
    return scores


def _counts(model: nn.Module, part: Slice, parameter: nn.Parameter) -> bool:
    owner, _, name = part.tensor.rpartition(".")
    scale = name == "weight" and isinstance(model.get_submodule(owner), _NORMS)
    return parameter.ndim >= 2 or scale

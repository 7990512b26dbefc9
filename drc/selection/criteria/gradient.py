"""Criteria that read the importance of a channel off the gradient of its gate, crop by crop.

Multiply every atom by a gate of value 1. To first order, closing the gate changes the loss by its
gradient, which is activation times gradient summed over the channel: Taylor importance (Molchanov
et al., ICLR 2017). To second order it changes by half the second derivative, which the mean
squared gradient stands for (Fisher; Theis et al., 2018; over coupled layers Liu et al., ICML 2021;
Molchanov et al., CVPR 2019). The papers' normalisation by layer would change nothing, since
channels are compared within their group alone, and their division by the cost of a channel is left
out, since the widths are found elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from drc.core.distributed import add_up
from drc.selection.calibration import Calibration, Scores
from drc.selection.criteria.base import Ranking, register
from drc.selection.gates import gate_gradients


@register("dual_taylor", by_crops=True)
def dual_taylor(calibration: Calibration, ranking: Ranking) -> Scores:
    """Mean over single crops of the squared gate gradient, in squared units of the loss."""
    return _mean_power(calibration, 2)


@register("taylor", by_crops=True)
def taylor(calibration: Calibration, ranking: Ranking) -> Scores:
    """Mean over single crops of the absolute gate gradient of the primal loss, in its units."""
    return _mean_power(replace(calibration, dual=None), 1)


@register("fisher", by_crops=True)
def fisher(calibration: Calibration, ranking: Ranking) -> Scores:
    """Mean over single crops of the squared gate gradient of the primal loss, its units squared."""
    return _mean_power(replace(calibration, dual=None), 2)


def _mean_power(calibration: Calibration, power: int) -> Scores:
    """Mean over the calibration crops, one by one, of |dL/dgate| to a power."""
    groups = calibration.graph.groups
    totals = [np.zeros((group.blocks, group.size)) for group in groups]
    for gradients in gate_gradients(calibration):
        for total, gradient in zip(totals, gradients, strict=True):
            total += np.abs(gradient) ** power
    crops = max(1, calibration.patches)
    return {
        group.name: add_up(torch.from_numpy(total)).numpy() / crops
        for group, total in zip(groups, totals, strict=True)
    }

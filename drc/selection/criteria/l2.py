"""Magnitude importance by the Euclidean norm (He et al., IJCAI 2018)."""

from __future__ import annotations

import numpy as np

from drc.selection.criteria.base import Calibration, Scores, register
from drc.selection.criteria.l1 import mean_written_power


@register("l2", data_free=True)
def l2(calibration: Calibration) -> Scores:
    """Root mean square weight over the slices that write each atom, biases left out.

    Within a group this ranks as the norm does: all its atoms have equally many weights.
    """
    scores = mean_written_power(calibration, 2)
    return {name: np.sqrt(values) for name, values in scores.items()}

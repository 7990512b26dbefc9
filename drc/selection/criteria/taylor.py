"""First-order Taylor importance (Molchanov et al., ICLR 2017), blind to the dual model.

The change of the loss when a channel is zeroed is, to first order, activation times gradient
summed over the channel: the gradient of a gate on it. The paper takes the absolute value per
image and averages. Its normalisation by layer would change nothing here, since channels are
compared within their group alone.
"""

from __future__ import annotations

from dataclasses import replace

from drc.selection.criteria.base import Calibration, Scores, register
from drc.selection.criteria.dual_taylor import mean_gate_power


@register("taylor", by_crops=True)
def taylor(calibration: Calibration) -> Scores:
    """Mean over single crops of the absolute gate gradient of the primal loss, in its units."""
    return primal_gate_power(calibration, 1)


def primal_gate_power(calibration: Calibration, power: int) -> Scores:
    """As `mean_gate_power`, on the primal loss alone. The crops count in `calibration`."""
    primal = replace(calibration, dual=None)
    try:
        return mean_gate_power(primal, power)
    finally:
        calibration.crop_passes = primal.crop_passes

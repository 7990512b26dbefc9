"""Fisher importance (Theis et al., 2018; over coupled layers: Liu et al., ICML 2021).

The mean squared gate gradient per image stands for the second derivative of the loss. Both papers
can divide it by the cost of the channel (operations, or memory); here the widths are found
elsewhere, so that is left out.
"""

from __future__ import annotations

from drc.selection.criteria.base import Calibration, Scores, register
from drc.selection.criteria.taylor import primal_gate_power


@register("fisher", by_crops=True)
def fisher(calibration: Calibration) -> Scores:
    """Mean over single crops of the squared gate gradient of the primal loss, its units squared."""
    return primal_gate_power(calibration, 2)

"""Random importance: the baseline that every criterion must beat."""

from __future__ import annotations

import numpy as np

from drc.selection.criteria.base import Calibration, Scores, register


@register("random", data_free=True)
def random(calibration: Calibration) -> Scores:
    """Uniform numbers from the calibration seed."""
    generator = np.random.default_rng(calibration.seed)
    groups = calibration.graph.groups
    return {group.name: generator.random((group.blocks, group.size)) for group in groups}

"""The default strategy: sensitivities from one pass, then an exact allocation to the budget."""

from __future__ import annotations

import numpy as np

from drc.importance.base import loss_of_removing, score
from drc.strategies.allocation import Losses, allocate_widths
from drc.strategies.base import Problem, register


@register("allocate")
def allocate(problem: Problem) -> np.ndarray:
    """Widths of least estimated dual regression loss within the budget."""
    return allocate_widths(problem, width_losses(problem))


def width_losses(problem: Problem) -> Losses:
    """The loss of every width, as the sum of the smallest `dual_taylor` scores of its group.

    One pass over the calibration data prices all widths of all groups.
    """
    scores = score("dual_taylor", problem.calibration)
    losses = []
    for group, option in zip(problem.calibration.graph.groups, problem.options, strict=True):
        losses.append(loss_of_removing(scores[group.name])[group.size - option])
    return losses

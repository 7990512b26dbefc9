"""The default strategy: sensitivities from one pass, then an exact allocation to the budget."""

from __future__ import annotations

import numpy as np

from drc.selection.criteria.base import loss_of_removing, score
from drc.selection.widths.allocation import Losses, allocate_widths, total_loss
from drc.selection.widths.base import Problem, register


@register("allocate")
def allocate(problem: Problem) -> np.ndarray:
    """Widths of least estimated dual regression loss within the budget."""
    losses = width_losses(problem)
    widths = allocate_widths(problem, losses)
    problem.expected_loss = total_loss(problem, losses, widths)
    return widths


def width_losses(problem: Problem) -> Losses:
    """The loss of every width, as the sum of the smallest scores of its group.

    One pass over the calibration data prices all widths of all groups.
    """
    scores = score(problem.settings.sensitivity, problem.calibration)
    losses = []
    for group, option in zip(problem.calibration.graph.groups, problem.options, strict=True):
        losses.append(loss_of_removing(scores[group.name])[group.size - option])
    return losses

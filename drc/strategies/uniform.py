"""Uniform widths: every group keeps the same share. The honest baseline of a search."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from drc.strategies.allocation import allocate_widths
from drc.strategies.base import Problem, register


@register("uniform", data_free=True)
def uniform(problem: Problem) -> np.ndarray:
    """The widths within the budget that are nearest to one common share of every group.

    The share is the one that would meet the budget without rounding; distance is the squared
    difference of shares, weighted by the group's size.
    """

    def excess(share: float) -> float:
        return problem.cost(np.maximum(problem.narrowest, share * problem.dense)) - problem.limit

    share = brentq(excess, 0.0, 1.0, xtol=1e-6) if excess(0.0) < 0 < excess(1.0) else 0.0
    losses = [option[-1] * (option / option[-1] - share) ** 2 for option in problem.options]
    return allocate_widths(problem, losses)

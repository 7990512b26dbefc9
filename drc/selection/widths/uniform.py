"""Uniform widths: groups keep the same share. The honest baselines of a search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import brentq

from drc.selection.widths.allocate import allocate_widths
from drc.selection.widths.base import Problem, Solution, register


@register("uniform", data_free=True)
def uniform(problem: Problem) -> Solution:
    """The widths within the budget that are nearest to one common share of every group.

    The share is the one that would meet the budget without rounding; distance is the squared
    difference of shares, weighted by the group's size.
    """
    share = common_share(problem)
    losses = [option[-1] * (option / option[-1] - share) ** 2 for option in problem.options]
    return Solution(allocate_widths(problem, losses))


@register("uniform_inner", data_free=True)
def uniform_inner(problem: Problem) -> Solution:
    """As `uniform`, but residual streams stay dense: how the papers narrow networks by hand.

    Streams are the groups whose widths multiply with those of others. Where the budget cannot be
    met so, all groups are narrowed.
    """
    options = list(problem.options)
    for stream in problem.cost.meeting_groups():
        options[stream] = options[stream][-1:]
    inner = replace(problem, options=options)
    return uniform(inner if problem.cost(inner.narrowest) <= problem.limit else problem)


def common_share(problem: Problem) -> float:
    """The share of its channels that every group would keep to meet the budget, unrounded.

    Groups do not fall below their narrowest width; 0 when all are there.
    """

    def excess(share: float) -> float:
        widths = np.clip(share * problem.dense, problem.narrowest, problem.dense)
        return problem.cost(widths) - problem.limit

    return brentq(excess, 0.0, 1.0, xtol=1e-6) if excess(0.0) < 0 < excess(1.0) else 0.0

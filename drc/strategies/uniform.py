"""Uniform widths: every group keeps the same fraction. The honest baseline of a search."""

from __future__ import annotations

import numpy as np

from drc.strategies.base import Problem, register
from drc.strategies.fill import fill


@register("uniform")
def uniform(problem: Problem) -> np.ndarray:
    """The largest common fraction whose rounded-down widths meet the budget, then filled up.

    The rest of the budget goes to the groups that rounding cut most.
    """
    fractions = np.unique(
        np.concatenate([option / option[-1] for option in problem.options] or [np.ones(1)])
    )
    low, high = 0, len(fractions) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if problem.cost(_rounded_down(problem, fractions[middle])) <= problem.limit:
            low = middle
        else:
            high = middle - 1
    widths = _rounded_down(problem, fractions[low])
    target = fractions[min(low + 1, len(fractions) - 1)] * problem.dense
    gain = [
        -np.abs(option - goal) / option[-1]
        for option, goal in zip(problem.options, target, strict=True)
    ]
    return fill(problem, widths, gain)


def _rounded_down(problem: Problem, fraction: float) -> np.ndarray:
    """Widths of at most `fraction`, or each group's narrowest."""
    widths = [
        option[max(0, int(np.searchsorted(option, fraction * option[-1] + 1e-9, "right")) - 1)]
        for option in problem.options
    ]
    return np.asarray(widths, dtype=np.float64)

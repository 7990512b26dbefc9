"""Spend what a plan leaves of its budget, one step of one group at a time."""

from __future__ import annotations

import numpy as np

from drc.strategies.base import Problem


def fill(problem: Problem, widths: np.ndarray, gain: list[np.ndarray]) -> np.ndarray:
    """Widen groups while the limit allows, always the one that gains most per cost.

    Args:
        problem: the budget and the options.
        widths: a plan within the limit, in group order.
        gain: per group, what a width is worth, for each of its options, ascending.
    """
    widths = widths.copy()
    while True:
        best, best_rate = None, -np.inf
        spare = problem.limit - problem.cost(widths)
        for group, option in enumerate(problem.options):
            place = int(np.searchsorted(option, widths[group]))
            if place + 1 >= len(option):
                continue
            wider = widths.copy()
            wider[group] = option[place + 1]
            price = problem.cost(wider) - (problem.limit - spare)
            rate = (gain[group][place + 1] - gain[group][place]) / max(price, 1e-9)
            if price <= spare and rate > best_rate:
                best, best_rate = wider, rate
        if best is None:
            return widths
        widths = best

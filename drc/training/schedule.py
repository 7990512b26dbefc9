"""The learning rate of each step."""

from __future__ import annotations

import math

FLOOR = 1e-3
"""The last learning rate as a fraction of the peak."""

_LONGEST_WARMUP = 0.2  # of the run, so that a short run still trains at its peak


def learning_rate(step: int, steps: int, peak: float, warmup: int = 0) -> float:
    """The rate of step `step` (from 0): a linear rise, then half a cosine down.

    It depends on nothing but its arguments, so a resumed run needs no scheduler state.

    Args:
        step: 0 to `steps - 1`.
        steps: length of the run.
        peak: the largest rate, reached at the end of the rise.
        warmup: steps of the rise; a fifth of the run at most.

    Returns:
        The learning rate; the last step's is `FLOOR * peak`.
    """
    warmup = min(warmup, int(steps * _LONGEST_WARMUP))
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))


__all__ = ["FLOOR", "learning_rate"]

"""Two rounds of compression: part of the way, a short recovery, and the rest of the way."""

from __future__ import annotations

import math

from drc.core.errors import UsageError
from drc.store.plan import GroupWidth, Plan

TWO_ROUNDS_ABOVE = 1.0
"""The ratio above which two rounds are the default; at 1.0 they are never."""

FIRST_SHARE = 1 / 3
"""Of the recovery steps, what the first round gets."""

TWO_ROUNDS = (
    "compressed in two rounds: part of the way, a recovery, and the rest; what stands right after "
    "pruning is after the second cut"
)
"""For the notes of a report."""

_LEAST = 1e-3  # still to remove when the first round has gone all the way, widths being coarse


def default_rounds(ratio: float) -> int:
    """How many rounds remove `ratio` where nobody says."""
    return 2 if ratio > TWO_ROUNDS_ABOVE else 1


def first_ratio(ratio: float) -> float:
    """What the first of two rounds removes: both then keep the same share of what they find."""
    return 1 - math.sqrt(1 - ratio)


def first_steps(steps: int) -> int:
    """The recovery steps of the first of two rounds.

    Raises:
        UsageError: there are too few for two.
    """
    if steps < 2:
        raise UsageError(
            f"two rounds recover twice and {steps} recovery steps are too few; take 2 or more, or "
            "one round"
        )
    return max(1, int(steps * FIRST_SHARE))


def second_ratio(first: Plan, ratio: float) -> float:
    """What the second round must remove of the network that the first plan leaves."""
    limit = first.budget.before * (1 - ratio)
    return max(_LEAST, 1 - limit / first.budget.predicted)


def joined(first: Plan, second: Plan, ratio: float) -> Plan:
    """The plan that takes the dense network where two plans, one after the other, take it.

    Args:
        first: of the dense network.
        second: of what the first leaves.
        ratio: the fraction that both together were to remove.
    """
    groups = dict(first.groups)
    for name, width in second.groups.items():
        of = first.groups[name].of if name in first.groups else width.of
        groups[name] = GroupWidth(keep=width.keep, of=of)
    before = first.budget.before
    budget = second.budget.model_copy(
        update={"ratio": ratio, "before": before, "limit": int(before * (1 - ratio))}
    )
    notes = list(dict.fromkeys([*first.notes, *second.notes]))
    changes = {"groups": groups, "budget": budget, "notes": notes, "expected_loss": None}
    return first.model_copy(update=changes)


__all__ = [
    "TWO_ROUNDS",
    "TWO_ROUNDS_ABOVE",
    "default_rounds",
    "first_ratio",
    "first_steps",
    "joined",
    "second_ratio",
]

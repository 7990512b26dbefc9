"""Uniform widths of which the small network is a plain, smaller form of its architecture.

Programs built on spandrel read an architecture's settings (features, growth channels, MLP ratio,
...) off the shapes of a checkpoint. Such settings are one number for many layers, so all groups of
a kind (layers that only the numbers in their names tell apart) keep the same share. Some kinds have
a setting of their own; the others are one setting together. Which, spandrel is asked: a cut of one
kind alone either loads and gives the same images, or it does not.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from drc.core.errors import BudgetError, ModelError
from drc.graph.inputs import example_input
from drc.graph.surgery import cut
from drc.networks.spandrel_networks import require, why_not_plain
from drc.selection.criteria.base import loss_of_removing, score
from drc.selection.widths.base import Problem, Solution, register

_MOST_CHECKS = 40
_MOST_CHOICES = 200_000
_MOST_NARROW = 5

Check = Callable[[np.ndarray], str | None]
"""Says of widths, one per group, why spandrel makes no such network of them; None if it does."""


@dataclass(frozen=True)
class Setting:
    """Groups whose widths one setting of the architecture gives.

    Attributes:
        groups: their places in the graph.
        shares: what all of them may keep, ascending; the last is 1.
    """

    groups: list[int]
    shares: list[Fraction]


@register("plain", by_scores=True)
def plain(problem: Problem) -> Solution:
    """The widths of least estimated loss, within the budget, that spandrel loads by themselves.

    Raises:
        ModelError: spandrel loads no narrower form of this network.
        BudgetError: those it loads cost more than the limit.
        WeightsError: spandrel is not installed.
    """
    check = _checker(problem)
    settings = _settings(problem, check)
    losses = _losses(problem)
    choices = _within_budget(problem, settings, losses)
    for loss, widths in choices[:_MOST_CHECKS]:
        if check(widths) is None:
            return Solution(widths, loss)
    raise ModelError(
        f"spandrel loads none of the {min(len(choices), _MOST_CHECKS)} best uniform widths within "
        "the budget; leave --uniform out, and drc.load opens the result"
    )


def _settings(problem: Problem, check: Check) -> list[Setting]:
    """The kinds that have a setting of their own, and the rest as one."""
    kinds: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for place, group in enumerate(problem.calibration.graph.groups):
        is_narrow = len(problem.options[place]) == 1
        kinds[is_narrow, re.sub(r"\d+", "*", group.name)].append(place)
    found, rest, narrow = [], [], []
    for (is_narrow, _), places in kinds.items():
        setting = Setting(places, _shares(problem, places))
        if is_narrow:
            narrow.append(places)
        elif _probe(problem, setting, check) is None:
            found.append(setting)
        else:
            rest += places
    for followers in _subsets(narrow[:_MOST_NARROW]):
        together = sorted([*rest, *itertools.chain(*followers)])
        setting = Setting(together, _shares(problem, together))
        reason = _probe(problem, setting, check)
        if reason is None:
            return [*found, setting]
    if not found:
        raise ModelError(
            f"spandrel loads no narrower form of this network ({reason}); leave --uniform out, and "
            "drc.load opens the result"
        )
    return found


def _subsets(kinds: list[list[int]]) -> Iterator[tuple[list[int], ...]]:
    """Which of the kinds too narrow for the rounding follow the others: first all of them."""
    for count in range(len(kinds), -1, -1):
        yield from itertools.combinations(kinds, count)


def _probe(problem: Problem, setting: Setting, check: Check) -> str | None:
    """Why a cut of these groups alone is no plain network; None if it is."""
    if len(setting.shares) < 2:
        return "its widths have no common smaller share that rounding and minimum width allow"
    return check(_widths(problem, [setting], [setting.shares[-2]]))


def _shares(problem: Problem, places: list[int]) -> list[Fraction]:
    """The shares at which all these groups have whole widths, as rounding allows them.

    A group too narrow for the rounding, as the middle of a channel attention, follows the others.
    """
    options = [set(problem.options[place].tolist()) for place in places]
    sizes = [int(problem.dense[place]) for place in places]
    whole = math.gcd(*sizes) if sizes else 1
    return [
        share
        for share in (Fraction(part, whole) for part in range(1, whole + 1))
        if share == 1 or _fits(share, sizes, options)
    ]


def _fits(share: Fraction, sizes: list[int], options: list[set[int]]) -> bool:
    rounded = [share * size in option for size, option in zip(sizes, options, strict=True)]
    free = [len(option) == 1 for option in options]
    return any(rounded) and all(r or f for r, f in zip(rounded, free, strict=True))


def _widths(problem: Problem, settings: list[Setting], shares: list[Fraction]) -> np.ndarray:
    widths = problem.dense.copy()
    for setting, share in zip(settings, shares, strict=True):
        widths[setting.groups] *= float(share)
    return widths.round()


def _losses(problem: Problem) -> list[np.ndarray]:
    """Per group the loss of removing 0, 1, 2, ... atoms."""
    scores = score(problem.settings.sensitivity, problem.calibration)
    return [loss_of_removing(scores[group.name]) for group in problem.calibration.graph.groups]


def _within_budget(
    problem: Problem, settings: list[Setting], losses: list[np.ndarray]
) -> list[tuple[float, np.ndarray]]:
    """All choices of shares within the budget, with their estimated loss, least first."""
    found, least = [], problem.cost(problem.dense)
    for shares in _choices(settings):
        widths = _widths(problem, settings, shares)
        cost = problem.cost(widths)
        least = min(least, cost)
        if cost <= problem.limit:
            gone = (problem.dense - widths).astype(int)
            loss = float(sum(lost[n] for lost, n in zip(losses, gone, strict=True)))
            found.append((loss, widths))
    if not found:
        before = problem.cost(problem.dense)
        raise BudgetError(
            f"uniform widths remove at most {1 - least / before:.1%} of the {problem.what}, with "
            "this rounding and these minimum widths; lower the ratio, --round-to or --min-width"
        )
    return sorted(found, key=lambda choice: choice[0])


def _choices(settings: list[Setting]) -> Iterator[list[Fraction]]:
    """Every combination of shares; of many settings only so fine as can be listed."""
    lists = [setting.shares for setting in settings]
    while math.prod(map(len, lists)) > _MOST_CHOICES:
        longest = max(range(len(lists)), key=lambda k: len(lists[k]))
        lists[longest] = lists[longest][-1::-2][::-1]
    yield from map(list, itertools.product(*lists))


def _checker(problem: Problem) -> Check:
    calibration = problem.calibration
    require("uniform widths are those that spandrel loads")
    image = example_input(calibration.model)

    def check(widths: np.ndarray) -> str | None:
        keep = {name: range(width) for name, width in problem.named(widths).items()}
        return why_not_plain(cut(calibration.model, calibration.graph, keep).eval(), image)

    return check

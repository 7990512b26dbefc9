"""Meeting a latency budget: plan by the table, cut, measure, correct, and plan again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch

from drc.core.errors import BudgetError
from drc.evaluation.latency import pass_times, steady_clock
from drc.evaluation.latency_table import LatencyTable, device_name
from drc.evaluation.layer_calls import layer_calls
from drc.graph.surgery import cut
from drc.selection.criteria.base import Calibration
from drc.selection.widths.base import Problem, solve
from drc.selection.widths.latency_cost import LatencyCost

_ROUNDS = 6
_CLOSE, _ALLOWED = 0.02, 0.05
_SECONDS = 5.0
_FEWEST, _MOST = 5, 15


@dataclass
class _Trial:
    """A plan, how it was found, and the milliseconds of its passes and the dense network's."""

    widths: dict[str, int]
    gain: float
    expected_loss: float | None
    before: list[float]
    after: list[float]

    @property
    def share(self) -> float:
        """The time after, over that before."""
        return _steady(self.after) / _steady(self.before)

    def miss(self, ratio: float) -> float:
        """By which fraction of the time asked for the plan misses it; negative when faster."""
        return self.share / (1 - ratio) - 1


def latency_cost(calibration: Calibration, lr_size: tuple[int, int]) -> LatencyCost:
    """Time the network and its layers at an LR image of this height and width.

    Raises:
        ModelError: the network does not run on an image of this size.
    """
    model = calibration.model
    tensor = next(model.parameters())
    calls = layer_calls(model, lr_size, tensor.device)
    table = LatencyTable(tensor.device, tensor.dtype)
    dense_us = 1000 * _steady(_passes(calibration, None, lr_size, _FEWEST)[0])
    return LatencyCost(calibration.graph, model, calls, table.microseconds, dense_us)


def meet_latency(problem: Problem, cost: LatencyCost, notes: list[str]) -> dict[str, int]:
    """Widths whose network takes the time asked for when it is run.

    The plan is cut, any channels of it, as time does not depend on which, and timed against the
    dense network. While it misses the time by more than 2 %, `cost` is corrected by what was
    measured and the search run again, six times at most; a plan that meets it is timed twice. The
    plan nearest to the time is returned, with `cost` as it was when it was found. One cache of
    layer times gives one first plan; further ones also depend on these measurements, so that two
    searches may differ.

    Args:
        problem: a search by `cost`, with the settings.
        cost: of the problem.
        notes: gets one on the times measured.

    Raises:
        BudgetError: no widths meet the budget; what can be reached was measured.
    """
    ratio = problem.settings.ratio
    trials: dict[tuple[int, ...], _Trial] = {}
    slow, fast = np.inf, 0.0  # gains that gave plans which take too long, or not long enough

    def best() -> _Trial:
        return min(trials.values(), key=lambda trial: abs(trial.miss(ratio)))

    for _ in range(_ROUNDS):
        try:
            widths = _solve(problem, cost, narrowest=not trials)
        except BudgetError:
            if trials and abs(best().miss(ratio)) <= _ALLOWED:
                break
            raise
        trial = trials.setdefault(tuple(widths.values()), _Trial(widths, 0.0, None, [], []))
        trial.gain, trial.expected_loss = cost.gain, problem.expected_loss
        _measure(trial, problem)
        if abs(trial.miss(ratio)) <= _CLOSE:
            _measure(trial, problem)  # once may be luck
            if abs(trial.miss(ratio)) <= _CLOSE:
                break
        if trial.miss(ratio) > 0:
            slow = min(slow, cost.gain)
        else:
            fast = max(fast, cost.gain)
        cost.correct(widths, cost(cost.dense) * trial.share)
        if fast < slow < np.inf and not fast < cost.gain < slow:
            cost.gain = (fast + slow) / 2
    chosen = best()
    cost.gain, problem.expected_loss = chosen.gain, chosen.expected_loss
    notes.append(_in_words(chosen, problem, len(trials)))
    return chosen.widths


def _solve(problem: Problem, cost: LatencyCost, narrowest: bool) -> dict[str, int]:
    """The strategy's widths; where there are none, `narrowest` tries again with those measured."""
    strategy = problem.settings.strategy
    try:
        return solve(strategy, problem)
    except BudgetError:
        if not narrowest or not np.any(problem.narrowest < problem.dense):
            raise
    least = dict(zip(cost.names, problem.narrowest.astype(int).tolist(), strict=True))
    trial = _Trial(least, cost.gain, None, [], [])
    _measure(trial, problem)
    cost.correct(least, cost(cost.dense) * trial.share)
    return solve(strategy, problem)


def _measure(trial: _Trial, problem: Problem) -> None:
    pair_us = problem.cost(problem.dense) + problem.cost(trial.widths)
    runs = int(np.clip(_SECONDS * 1e6 / pair_us, _FEWEST, _MOST))
    before, after = _passes(problem.calibration, trial.widths, problem.settings.lr_size, runs)
    trial.before += before
    trial.after += after


def _steady(times: list[float]) -> float:
    """Mean of the faster half, which other programs disturbed least."""
    return fmean(sorted(times)[: (len(times) + 1) // 2])


def _passes(
    calibration: Calibration,
    widths: Mapping[str, int] | None,
    lr_size: tuple[int, int],
    runs: int,
) -> tuple[list[float], list[float]]:
    """Milliseconds of the passes of the dense network and of one with these widths, in turn."""
    model = calibration.model
    models = {"dense": model}
    if widths is not None:
        keep = {name: list(range(width)) for name, width in widths.items()}
        models["cut"] = cut(model, calibration.graph, keep).eval()
    device = next(model.parameters()).device
    clock = steady_clock(device)
    times = pass_times(
        models, lr_size, runs=runs, device=device, clock=clock, progress=calibration.progress
    )
    return times["dense"], times.get("cut", [])


def _in_words(trial: _Trial, problem: Problem, rounds: int) -> str:
    settings, threads = problem.settings, torch.get_num_threads()
    device = next(problem.calibration.model.parameters()).device
    height, width = settings.lr_size
    text = (
        f"measured at an LR image of {height}x{width} on {device_name(device)}, {threads} "
        f"{'thread' if threads == 1 else 'threads'}: {_steady(trial.before):.1f} ms dense "
        f"and {_steady(trial.after):.1f} ms with these widths, {1 - trial.share:.1%} less; "
        f"{rounds} {'plan was' if rounds == 1 else 'plans were'} tried"
    )
    if abs(trial.miss(settings.ratio)) > _CLOSE:
        text += f", and none came within {_CLOSE:.0%} of the time asked for"
    return text

"""Latency budgets: the time of a forward pass as a function of the widths, and meeting one.

The function comes from a measured table. A plan is made by it, cut, measured, the function is
corrected, and the plan made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from torch import nn

from drc.core.errors import BudgetError
from drc.evaluation.latency import pass_times, steady_clock
from drc.evaluation.latency_table import LatencyTable, LayerShape, device_name
from drc.evaluation.layer_calls import LayerCall, layer_calls
from drc.graph.cost import LinearSizes, Widths, as_vector
from drc.graph.groups import ChannelGraph
from drc.graph.surgery import KeepSets, cut
from drc.selection.calibration import Calibration
from drc.selection.widths.base import Problem, Solution, solve

_ROUNDS = 6
_CLOSE, _ALLOWED = 0.02, 0.05
_SECONDS = 5.0
_FEWEST, _MOST = 5, 15
_LEAST_GAIN = 0.1
_MOST_FIXED = 12

Times = Callable[[Iterable[LayerShape]], dict[LayerShape, float]]
"""Microseconds of one call of each layer, such as `LatencyTable.microseconds`."""

Sized = tuple[int, int, int]
"""A layer call by its place, and the first two dimensions of its weight."""


class LatencyCost:
    """Microseconds of one forward pass with given widths.

    The layers take what the table says of their shapes. The rest of the pass (activations, sums,
    attention products, copies) is what the dense network takes beyond its layers, and shrinks with
    the numbers that the layers put out. What is saved that way is then scaled by `gain`, 1 until
    `correct` has seen how much a cut network really saves.

    Args:
        graph: the channel groups.
        model: the network that was traced.
        calls: its layers and their inputs.
        times: the table.
        dense_us: microseconds of the dense network's forward pass.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        calls: Sequence[LayerCall],
        times: Times,
        dense_us: float,
    ) -> None:
        self.names = [group.name for group in graph.groups]
        self.dense = np.asarray([group.size for group in graph.groups], dtype=np.float64)
        self.gain = 1.0
        self._calls, self._times, self._dense_us = calls, times, dense_us
        self._sizes = LinearSizes(graph, model, [call.weight for call in calls])
        slopes = np.stack(self._sizes.slope[:2])
        self._rows_of = [np.flatnonzero(slopes[:, :, g].any(0)) for g in range(len(self.names))]
        outputs = sum(call.outputs * call.count for call in calls)
        self._known: dict[Sized, float] = {}
        self._constant, self._scale, self._per_output = 0.0, 1.0, 0.0
        table = self._raw(self.dense)
        # Layers timed one by one may take longer than all together: never more than the whole.
        self._scale = min(1.0, dense_us / table) if table else 1.0
        self._per_output = (dense_us - self._scale * table) / outputs if outputs else 0.0
        self._constant = 0.0 if outputs else dense_us
        self._known.clear()

    def __call__(self, widths: Widths | np.ndarray) -> int:
        """Microseconds at `widths`, by group name (missing ones are dense) or in group order.

        Fractions of channels are taken at the nearest multiple of 4, lest ever new shapes be timed.
        """
        vector = as_vector(widths, self.names, self.dense)
        raw = self._raw(np.where(vector % 1, (4 * np.rint(vector / 4)).clip(1, self.dense), vector))
        return round(self._dense_us - self.gain * (self._dense_us - raw))

    def of_options(self, widths: np.ndarray, options: Sequence[np.ndarray]) -> list[np.ndarray]:
        """By how much the time changes when one group alone goes to an option; see `Cost`."""
        now = self._sized(self._sizes.at(widths))
        then = [
            [self._moved(widths, group, width) for width in option]
            for group, option in enumerate(options)
        ]
        self._learn([*now, *(sized for moves in then for move in moves for sized in move)])
        before = np.asarray([self._known[sized] for sized in now])
        return [
            self.gain
            * np.asarray([sum(self._known[s] for s in move) - before[rows].sum() for move in moves])
            for rows, moves in zip(self._rows_of, then, strict=True)
        ]

    def meeting_groups(self) -> np.ndarray:
        """A small set of groups whose widths, once fixed, make the changes of the others add up.

        Groups that a layer reads side by side share the steps of its staircase, so they meet too.
        Where that makes a large set, as in networks full of concatenations, it is left out, and
        the changes add up but nearly.
        """
        exact = self._sizes.meeting_groups(side_by_side=True)
        return exact if len(exact) <= _MOST_FIXED else self._sizes.meeting_groups()

    def correct(self, widths: Widths | np.ndarray, measured_us: float) -> None:
        """Set `gain` so that the network with these widths takes what was measured."""
        predicted = self._dense_us - self._raw(as_vector(widths, self.names, self.dense))
        if predicted > 0:
            self.gain = max((self._dense_us - measured_us) / predicted, _LEAST_GAIN)

    def _raw(self, widths: np.ndarray) -> float:
        sized = self._sized(self._sizes.at(widths))
        self._learn(sized)
        return self._constant + sum(self._known[s] for s in sized)

    def _moved(self, widths: np.ndarray, group: int, width: float) -> list[Sized]:
        """The layers of one group when it alone has another width."""
        rows = self._rows_of[group]
        step = width - widths[group]
        sizes = self._sizes.at(widths)[rows]
        for dim, slope in enumerate(self._sizes.slope[:2]):
            sizes[:, dim] += slope[rows, group] * step
        return self._sized(sizes, rows)

    def _sized(self, sizes: np.ndarray, rows: np.ndarray | None = None) -> list[Sized]:
        whole = np.maximum(np.rint(sizes[:, :2]), 1).astype(int).tolist()
        numbers = range(len(whole)) if rows is None else rows.tolist()
        return [(row, first, second) for row, (first, second) in zip(numbers, whole, strict=True)]

    def _learn(self, sized: Iterable[Sized]) -> None:
        """Price the layers that have no price yet, all in one look at the table."""
        missing = {s: self._calls[s[0]].resized(*s[1:]) for s in sized if s not in self._known}
        times = self._times(missing.values()) if missing else {}
        for (row, first, second), shape in missing.items():
            call = self._calls[row]
            outputs = call.outputs * call.output_share(first, second)
            once = self._scale * times[shape] + self._per_output * outputs
            self._known[row, first, second] = call.count * once


@dataclass
class _Trial:
    """Widths, how they were found, and milliseconds of the dense network's passes and of theirs."""

    solution: Solution
    gain: float
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

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
    calls = layer_calls(model, lr_size, calibration.device)
    table = LatencyTable(calibration.device, next(model.parameters()).dtype)
    dense_us = 1000 * _steady(_passes(calibration, None, lr_size, _FEWEST)[0])
    return LatencyCost(calibration.graph, model, calls, table.microseconds, dense_us)


def meet_latency(problem: Problem, cost: LatencyCost, notes: list[str]) -> Solution:
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
            solution = _solve(problem, cost, narrowest=not trials)
        except BudgetError:
            if trials and abs(best().miss(ratio)) <= _ALLOWED:
                break
            raise
        trial = trials.setdefault(tuple(solution.widths), _Trial(solution, cost.gain))
        trial.solution, trial.gain = solution, cost.gain
        _measure(trial, problem)
        if abs(trial.miss(ratio)) <= _CLOSE:
            _measure(trial, problem)  # once may be luck
            if abs(trial.miss(ratio)) <= _CLOSE:
                break
        if trial.miss(ratio) > 0:
            slow = min(slow, cost.gain)
        else:
            fast = max(fast, cost.gain)
        cost.correct(solution.widths, cost(cost.dense) * trial.share)
        if fast < slow < np.inf and not fast < cost.gain < slow:
            cost.gain = (fast + slow) / 2
    chosen = best()
    cost.gain = chosen.gain
    notes.append(_in_words(chosen, problem, len(trials)))
    return chosen.solution


def _solve(problem: Problem, cost: LatencyCost, narrowest: bool) -> Solution:
    """The strategy's widths; where there are none, `narrowest` tries again with those measured."""
    strategy = problem.settings.strategy
    try:
        return solve(strategy, problem)
    except BudgetError:
        if not narrowest or not np.any(problem.narrowest < problem.dense):
            raise
    trial = _Trial(Solution(problem.narrowest), cost.gain)
    _measure(trial, problem)
    cost.correct(problem.narrowest, cost(cost.dense) * trial.share)
    return solve(strategy, problem)


def _measure(trial: _Trial, problem: Problem) -> None:
    widths = trial.solution.widths
    pair_us = problem.cost(problem.dense) + problem.cost(widths)
    runs = int(np.clip(_SECONDS * 1e6 / pair_us, _FEWEST, _MOST))
    keep = {name: list(range(width)) for name, width in problem.named(widths).items()}
    before, after = _passes(problem.calibration, keep, problem.settings.lr_size, runs)
    trial.before += before
    trial.after += after


def _steady(times: list[float]) -> float:
    """Mean of the faster half, which other programs disturbed least."""
    return fmean(sorted(times)[: (len(times) + 1) // 2])


def _passes(
    calibration: Calibration, keep: KeepSets | None, lr_size: tuple[int, int], runs: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of the passes of the dense network and of one cut to these sets, in turn."""
    device, models = calibration.device, {"dense": calibration.model}
    if keep is not None:
        models["cut"] = cut(calibration.model, calibration.graph, keep).eval()
    times = pass_times(
        models, lr_size, runs=runs, device=device, clock=steady_clock(device),
        progress=calibration.progress,
    )  # fmt: skip
    return times["dense"], times.get("cut", [])


def _in_words(trial: _Trial, problem: Problem, rounds: int) -> str:
    settings, threads = problem.settings, torch.get_num_threads()
    device = problem.calibration.device
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

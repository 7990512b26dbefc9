"""The time of a forward pass as a function of the group widths, from a measured table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from torch import nn

from drc.evaluation.latency_table import LayerShape
from drc.evaluation.layer_calls import LayerCall
from drc.graph.cost import LinearSizes, Widths, as_vector
from drc.graph.groups import ChannelGraph

Times = Callable[[Iterable[LayerShape]], dict[LayerShape, float]]
"""Microseconds of one call of each layer, such as `LatencyTable.microseconds`."""

Sized = tuple[int, int, int]
"""A layer call by its place, and the first two dimensions of its weight."""

_LEAST_GAIN = 0.1
_MOST_FIXED = 12


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

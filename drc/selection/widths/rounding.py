"""The multiple of channels that a device likes, read off the times of a network's layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from drc.evaluation.layer_calls import LayerCall
from drc.graph.cost import LinearSizes
from drc.graph.groups import ChannelGraph
from drc.selection.widths.latency_cost import Times

STEPS = (4, 8, 16, 32)
_LAYERS = 3
_SPAN = 64


def device_step(
    graph: ChannelGraph, model: nn.Module, calls: Sequence[LayerCall], times: Times
) -> int:
    """The one of `STEPS` in which the time of the network's slowest layers rises.

    Up to three layers that a plan can narrow are timed at all multiples of four channels of the
    upper 64. A device that works on blocks of s channels takes `a + b * ceil(width / s)`; the s
    which fits best, by least squares, is the answer. The first of `STEPS` where no layer can tell.

    Args:
        graph: the channel groups.
        model: the network that was traced.
        calls: its layers and their inputs.
        times: the table of their times.
    """
    misfit = dict.fromkeys(STEPS, 0.0)
    for call, dim in _slowest(graph, model, calls, times):
        dense = call.shape.weight[dim]
        widths = range(max(0, dense - _SPAN) + STEPS[0], dense + 1, STEPS[0])
        shapes = [
            call.resized(*(w if d == dim else call.shape.weight[d] for d in (0, 1))) for w in widths
        ]
        table = times(shapes)
        measured = np.asarray([table[shape] for shape in shapes])
        for step in STEPS:
            misfit[step] += _misfit(np.asarray(widths), measured / measured.max(), step)
    return min(STEPS, key=lambda step: misfit[step])


def _slowest(
    graph: ChannelGraph, model: nn.Module, calls: Sequence[LayerCall], times: Times
) -> Iterator[tuple[LayerCall, int]]:
    """Layers of different shapes, with the dimensions of the weight that groups fill."""
    sizes = LinearSizes(graph, model, [call.weight for call in calls])
    table = times([call.shape for call in calls])
    total: dict[object, float] = defaultdict(float)
    first: dict[object, int] = {}
    for row, call in enumerate(calls):
        varies = any(slope[row].any() for slope in sizes.slope[:2])
        if varies and call.shape.groups == 1 and min(call.shape.weight[:2]) >= 2 * STEPS[1]:
            total[call.shape] += table[call.shape] * call.count
            first.setdefault(call.shape, row)
    for shape in sorted(total, key=lambda s: -total[s])[:_LAYERS]:
        row = first[shape]
        for dim in (0, 1):
            if sizes.slope[dim][row].any():
                yield calls[row], dim


def _misfit(widths: np.ndarray, times: np.ndarray, step: int) -> float:
    """Squared distance of the times from the staircase of this step that is nearest."""
    stairs = np.stack([np.ones(len(widths)), np.ceil(widths / step)], 1)
    nearest = stairs @ np.linalg.lstsq(stairs, times, rcond=None)[0]
    return float(((times - nearest) ** 2).sum())

"""How small LR images may be: the network's own limit, and that of its file in the runtime."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor

from drc.evaluation.sides import round_up
from drc.exporters.formats.base import Runtime
from drc.exporters.parity import Tolerance, check
from drc.exporters.wrapper import UnitNetwork


def smallest_of_network(network: UnitNetwork, photo: Tensor, multiple: int) -> int:
    """The smallest LR side that the network takes in torch; see `smallest_side`."""

    def runs(lr: Tensor) -> bool:
        try:
            with torch.no_grad():
                network(lr)
        except Exception:  # a foreign forward raises what it likes
            return False
        return True

    return smallest_side(runs, photo, multiple)


def smallest_of_file(
    network: UnitNetwork,
    runtime: Runtime,
    photo: Tensor,
    multiple: int,
    tolerance: Tolerance,
    least: int,
) -> int:
    """The smallest LR side that the file takes, giving what the network gives.

    An exporter may have assumed that sides are larger than some number: its file then refuses
    smaller images, or, worse, gives others than the network, whose own `least` it may have.
    """

    def agrees(lr: Tensor) -> bool:
        try:
            return check(network, runtime, [lr])[0].passes(tolerance)
        except Exception:  # of the network, which raises what it likes
            return False

    return smallest_side(agrees, photo, multiple, least)


def smallest_side(
    takes: Callable[[Tensor], bool], photo: Tensor, multiple: int, least: int = 1
) -> int:
    """The side of the smallest image taken, where a larger one is taken if a smaller one is.

    Args:
        takes: whether an LR image `(1, C, h, w)` is.
        photo: one that is taken, whose corner is tried, square and with one long side.
        multiple: of this many LR pixels are the sides that are tried.
        least: smaller ones are not tried.
    """
    height, width = photo.shape[2:]

    def is_taken(side: int) -> bool:
        sizes = ((side, side), (side, width), (height, side))
        return all(takes(photo[:, :, :h, :w].contiguous()) for h, w in sizes)

    sides = range(round_up(least, multiple), min(height, width) // multiple * multiple, multiple)
    if sides and is_taken(sides[0]):  # as nearly always
        return sides[0]
    found = bisect_left(sides, True, key=is_taken)
    return sides[found] if found < len(sides) else min(height, width) // multiple * multiple

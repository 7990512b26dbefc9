"""How small LR images may be: the network's own limit, and that of its file in the runtime."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from drc.exporters.base import Runtime
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
    network: UnitNetwork, runtime: Runtime, photo: Tensor, multiple: int, tolerance: Tolerance
) -> int:
    """The smallest LR side that the file takes, giving what the network gives.

    An exporter may have assumed that sides are larger than some number: its file then refuses
    smaller images, or, worse, gives others than the network.
    """

    def agrees(lr: Tensor) -> bool:
        try:
            return check(network, runtime, [lr])[0].passes(tolerance)
        except Exception:  # of the network, which raises what it likes
            return False

    return smallest_side(agrees, photo, multiple)


def smallest_side(takes: Callable[[Tensor], bool], photo: Tensor, multiple: int) -> int:
    """The side of the smallest image taken, no larger one being refused.

    Args:
        takes: whether an LR image `(1, C, h, w)` is.
        photo: one that is taken, whose corner is tried, square and with one long side.
        multiple: of this many LR pixels are the sides that are tried.
    """
    largest = min(photo.shape[2:]) // multiple * multiple
    least = largest
    for side in range(largest - multiple, 0, -multiple):
        if not takes(photo[:, :, :side, :side].contiguous()):
            break
        least = side
    while least < largest and not (
        takes(photo[:, :, :least].contiguous()) and takes(photo[:, :, :, :least].contiguous())
    ):
        least += multiple
    return least


__all__ = ["smallest_of_file", "smallest_of_network", "smallest_side"]

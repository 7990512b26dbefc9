"""How small LR images may be: the network's own limit, and that of its file in the runtime."""

from __future__ import annotations

import torch
from torch import Tensor

from drc.core.probe import smallest_side
from drc.exporters.formats.base import Runtime
from drc.exporters.parity import Tolerance, check
from drc.exporters.wrapper import UnitNetwork


def smallest_of_network(network: UnitNetwork, photo: Tensor, multiple: int) -> int:
    """The smallest LR side that the network takes in torch; see `smallest_side`."""

    def runs(lr: Tensor) -> bool:
        with torch.no_grad():
            network(lr)
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
        return check(network, runtime, [lr])[0].passes(tolerance)

    return smallest_side(agrees, photo, multiple, least)

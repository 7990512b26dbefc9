"""Whether a file gives what the network gives, in the real runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drc.exporters.formats.base import FLOAT, HALF, INT8, Image, Runtime, first_line
from drc.exporters.wrapper import UnitNetwork

_EQUAL = 200.0
"""The PSNR written where there is no difference."""


@dataclass(frozen=True)
class Tolerance:
    """What a file may differ by.

    Attributes:
        largest: difference at any pixel, in parts of the output's range; None for any.
        psnr: dB, the file's output against the network's, at least.
    """

    largest: float | None
    psnr: float


TOLERANCES = {
    FLOAT: Tolerance(largest=5e-4, psnr=80.0),  # an eighth of an 8-bit level
    HALF: Tolerance(largest=2e-2, psnr=50.0),  # five levels at a single pixel
    INT8: Tolerance(largest=None, psnr=25.0),  # its cost is measured in PSNR on photos
}
"""By precision."""


@dataclass(frozen=True)
class Check:
    """One image through the file and through the network.

    Attributes:
        lr_size: height and width.
        largest: difference at any pixel, in parts of the range: 1, or more for outputs beyond it.
        psnr: dB, the file's output against the network's.
        failure: what went wrong, in one line; the figures are then None.
    """

    lr_size: tuple[int, int]
    largest: float | None = None
    psnr: float | None = None
    failure: str | None = None

    def passes(self, tolerance: Tolerance) -> bool:
        """Whether it ran, and is near enough."""
        if self.largest is None or self.psnr is None:
            return False
        near = tolerance.largest is None or self.largest <= tolerance.largest
        return near and self.psnr >= tolerance.psnr


def check(network: UnitNetwork, runtime: Runtime, images: Sequence[Tensor]) -> list[Check]:
    """Compare on every image, `(1, C, h, w)` in 0..1."""
    return [_check(network, runtime, lr) for lr in images]


def _check(network: UnitNetwork, runtime: Runtime, lr: Tensor) -> Check:
    size = (lr.shape[2], lr.shape[3])
    with torch.no_grad():
        expected: Image = network(lr).numpy()
    try:
        found = np.asarray(runtime(lr.numpy()))
    except Exception as error:  # runtimes raise what they like
        return Check(size, failure=first_line(error))
    if found.shape != expected.shape:
        shapes = ("x".join(map(str, image.shape)) for image in (found, expected))
        return Check(size, failure="it gives {}, not {}".format(*shapes))
    if not np.isfinite(found).all():
        return Check(size, failure="it gives NaN or infinite values")
    span = max(1.0, float(np.abs(expected).max()))
    difference = (found.astype(np.float64) - expected) / span
    squared = float(np.mean(difference**2))
    psnr = min(-10 * math.log10(squared), _EQUAL) if squared > 0 else _EQUAL
    return Check(size, float(f"{np.abs(difference).max():.3g}"), round(psnr, 2))

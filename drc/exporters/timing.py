"""How fast a file is in its runtime, in turns with what it is compared with."""

from __future__ import annotations

from functools import partial
from statistics import median

import numpy as np
import torch

from drc.core.runtime import Progress
from drc.evaluation.latency import interleave, warm_up
from drc.exporters.base import Runtime
from drc.exporters.result import Speed

_CPU = torch.device("cpu")


def measure_speed(
    file: Runtime,
    channels: int,
    lr_size: tuple[int, int],
    *,
    dense: Runtime | None = None,
    float32: Runtime | None = None,
    runs: int,
    name: str = "latency",
    progress: Progress | None = None,
) -> Speed:
    """Time a file on the CPU, as `drc.evaluation.latency.latency` does networks.

    Args:
        file: opened with as many threads as torch has, as the others.
        channels: of the images.
        lr_size: height and width of the LR image.
        dense: the file of the network before compression.
        float32: the network's own file in float32, if `file` is in another precision.
        runs: timed passes per file, at least 1.
        name: as `progress` is to call it.
        progress: told about every round.
    """
    image = np.random.default_rng(0).random((1, channels, *lr_size), dtype=np.float32)
    given = {"file": file, "dense": dense, "float32": float32}
    passes = {key: partial(run, image) for key, run in given.items() if run is not None}
    for forward in passes.values():
        warm_up(forward, _CPU)
    times = interleave(passes, runs, _CPU, what=name, progress=progress)
    found = {key: median(values) for key, values in times.items()}
    own, before, plain = found["file"], found.get("dense"), found.get("float32")
    return Speed(
        own,
        before,
        None if before is None else before / own,
        plain,
        lr_size,
        runs,
        torch.get_num_threads(),
    )


__all__ = ["measure_speed"]

"""How fast files are in their runtime, in turns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import median

import numpy as np
import torch

from drc.evaluation.latency import Latency, interleave, warm_up
from drc.exporters.base import Runtime
from drc.runtime import Progress

_CPU = torch.device("cpu")


def runtime_latency(
    runtimes: Mapping[str, Runtime],
    channels: int,
    lr_size: tuple[int, int],
    *,
    runs: int,
    name: str = "latency",
    progress: Progress | None = None,
) -> dict[str, Latency]:
    """Time files side by side on the CPU, as `drc.evaluation.latency.latency` does networks.

    Args:
        runtimes: by name, opened with as many threads as torch has.
        channels: of the images.
        lr_size: height and width of the LR image.
        runs: timed passes per file, at least 1.
        name: as `progress` is to call it.
        progress: told about every round.
    """
    image = np.random.default_rng(0).random((1, channels, *lr_size), dtype=np.float32)
    passes = {name: partial(runtime, image) for name, runtime in runtimes.items()}
    for forward in passes.values():
        warm_up(forward, _CPU)
    times = interleave(passes, runs, _CPU, what=name, progress=progress)
    threads = torch.get_num_threads()
    return {
        name: Latency(median(values), runs, lr_size, "cpu", threads)
        for name, values in times.items()
    }


__all__ = ["runtime_latency"]

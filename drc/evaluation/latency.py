"""Forward time of networks, measured so that they can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from drc.core.errors import UsageError
from drc.core.runtime import Progress, resolve_device
from drc.evaluation.inference import borrowed, on_image

_WARM_UP = 2

Clock = Callable[[], float]
"""Seconds since some moment."""

Pass = Callable[[], Any]
"""Runs a network once."""


@dataclass(frozen=True)
class Latency:
    """Median time of one forward pass of one image, and the conditions it was measured under."""

    median_ms: float
    runs: int
    lr_size: tuple[int, int]
    device: str
    threads: int


def latency(
    models: Mapping[str, nn.Module],
    lr_size: tuple[int, int] = (96, 96),
    *,
    runs: int = 5,
    device: str | torch.device = "auto",
    clock: Clock = time.perf_counter,
    what: str = "latency",
    progress: Progress | None = None,
) -> dict[str, Latency]:
    """Time networks side by side: warm, interleaved, each round in the reverse order of the last.

    Interleaving spreads a slow spell of the machine over all of them. Float32, batch 1, the
    memory format that each network has; each returns to its own device and mode.

    Args:
        models: networks by name.
        lr_size: height and width of the LR image.
        runs: timed passes per network, at least 1.
        device: auto, cpu or cuda:N.
        clock: in seconds.
        what: as `progress` is to call it.
        progress: called after every round.

    Raises:
        UsageError: no runs, or the device does not exist.
    """
    device = resolve_device(device)
    size = int(lr_size[0]), int(lr_size[1])
    times = pass_times(
        models, size, runs=runs, device=device, clock=clock, what=what, progress=progress
    )
    return {
        name: Latency(median(values), runs, size, _name(device), torch.get_num_threads())
        for name, values in times.items()
    }


def pass_times(
    models: Mapping[str, nn.Module],
    lr_size: tuple[int, int],
    *,
    runs: int,
    device: torch.device,
    clock: Clock = time.perf_counter,
    what: str = "latency",
    progress: Progress | None = None,
) -> dict[str, list[float]]:
    """Milliseconds of every timed pass, by network, in the order of the rounds; see `latency`."""
    if runs < 1:
        raise UsageError(f"latency needs at least 1 run, got {runs}")
    passes: dict[str, Pass] = {}
    with ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(borrowed(model, device))
            passes[name] = on_image(model, lr_size, device, partial(_warmed_up, model))
        return interleave(passes, runs, device, clock=clock, what=what, progress=progress)


def interleave(
    passes: Mapping[str, Pass],
    runs: int,
    device: torch.device,
    *,
    clock: Clock = time.perf_counter,
    what: str = "latency",
    progress: Progress | None = None,
) -> dict[str, list[float]]:
    """Milliseconds of every pass, each warm already, by name and in the order of the rounds.

    They take turns, each round in the reverse order of the last; other arguments as for `latency`.
    """
    times: dict[str, list[float]] = {name: [] for name in passes}
    for run in range(runs):
        for name in list(passes)[:: -1 if run % 2 else 1]:
            times[name].append(_milliseconds(passes[name], device, clock))
        if progress is not None:
            progress(what, run + 1, runs, {})
    return times


def warm_up(forward: Pass, device: torch.device) -> None:
    """Run the passes that do not count."""
    for _ in range(_WARM_UP):
        forward()
    synchronize(device)


def steady_clock(device: torch.device) -> Clock:
    """What to compare times by while other programs run.

    Where one CPU thread does all the work that is its own time, which leaves out theirs.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _warmed_up(model: nn.Module, lr: Tensor) -> Pass:
    forward = partial(model, lr)
    warm_up(forward, lr.device)
    return forward


def _milliseconds(forward: Pass, device: torch.device, clock: Clock) -> float:
    synchronize(device)
    started = clock()
    forward()
    synchronize(device)
    return (clock() - started) * 1000.0


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)

"""Forward time of networks, measured so that they can be compared."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from drc.errors import UsageError
from drc.evaluation.inference import borrowed, on_image
from drc.runtime import Progress, resolve_device

_WARM_UP = 2


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
        progress: told about every round.

    Raises:
        UsageError: no runs, or the device does not exist.
    """
    if runs < 1:
        raise UsageError(f"latency needs at least 1 run, got {runs}")
    place = resolve_device(device)
    height, width = int(lr_size[0]), int(lr_size[1])
    images: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {name: [] for name in models}
    with ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(borrowed(model, place))
            images[name] = on_image(model, (height, width), place, partial(_warmed_up, model))
        for run in range(runs):
            order = list(models)[:: -1 if run % 2 else 1]
            for name in order:
                times[name].append(_forward_ms(models[name], images[name]))
            if progress is not None:
                progress("latency", run + 1, runs, {})
    return {
        name: Latency(median(values), runs, (height, width), _name(place), torch.get_num_threads())
        for name, values in times.items()
    }


def _warmed_up(model: nn.Module, lr: Tensor) -> Tensor:
    """Return `lr` after the passes on it that do not count."""
    for _ in range(_WARM_UP):
        _forward_ms(model, lr)
    return lr


def _forward_ms(model: nn.Module, lr: Tensor) -> float:
    _synchronize(lr.device)
    started = time.perf_counter()
    model(lr)
    _synchronize(lr.device)
    return (time.perf_counter() - started) * 1000.0


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


__all__ = ["Latency", "latency"]

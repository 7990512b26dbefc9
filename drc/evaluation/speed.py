"""How fast networks run beside each other, in every way that users run them.

Ratios hold within one mode only: a fast mode of the dense network may beat a slow mode of a
pruned one.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from drc.core.errors import UsageError, unknown_name
from drc.core.runtime import Progress, resolve_device
from drc.evaluation.latency import Pass, interleave, warm_up
from drc.evaluation.memory import peak_mib
from drc.networks.copying import copy_of
from drc.networks.traits import get_traits

MODES = {
    "eager": "float32, as the network is",
    "channels_last": "float32 in the channels_last memory format",
    "compiled": "float32 through torch.compile",
    "bf16": "bfloat16 autocast in the channels_last memory format",
}
"""Name of a mode -> what it is."""

SIZES = ((96, 96), (270, 480))
"""The LR images measured by default: that of the papers' MACs, and that of full HD at x4."""

_MOST_VERSIONS = 256
# Every block of a pruned network has shapes of its own, and torch stops compiling after eight.


@dataclass(frozen=True)
class Timing:
    """One network in one mode on one LR size.

    Attributes:
        lr_size: height and width of the LR image; batch 1.
        mode: its name.
        network: its name.
        median_ms: of one pass; None where it failed.
        speedup: the first network's median over this one's, both of this mode and size.
        peak_mib: memory that a pass takes at most beyond the weights; None where nobody says.
            Of torch's modes the tensors of the pass, of others what the system sees.
        failure: why there is no time, in one line.
    """

    lr_size: tuple[int, int]
    mode: str
    network: str
    median_ms: float | None = None
    speedup: float | None = None
    peak_mib: float | None = None
    failure: str | None = None


class Backend(ABC):
    """A way to run networks."""

    @abstractmethod
    def prepare(self, network: nn.Module, image: Tensor) -> Pass:
        """One pass of a network on `image`, `(1, C, h, w)`, to be called without gradients.

        The network is not changed, and runs on the device of the image.
        """

    @abstractmethod
    def peak_mib(self, network: nn.Module, image: Tensor, forward: Pass) -> float | None:
        """The memory of `forward`, which `prepare` made of the others and which is warm."""


@dataclass(frozen=True)
class TorchMode(Backend):
    """A key of `MODES`, which runs a copy of the network."""

    mode: str

    def prepare(self, network: nn.Module, image: Tensor) -> Pass:
        model = copy_of(network).to(image.device).eval()
        around: Callable[[], AbstractContextManager[Any]] = nullcontext
        if self.mode in ("channels_last", "bf16"):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            image = image.contiguous(memory_format=torch.channels_last)
        if self.mode == "bf16":
            around = partial(torch.autocast, image.device.type, torch.bfloat16)
        run: Callable[[Tensor], Any] = model
        if self.mode == "compiled":
            run = torch.compile(model, dynamic=False)

        def forward() -> Any:
            with around():
                return run(image)

        return forward

    def peak_mib(self, network: nn.Module, image: Tensor, forward: Pass) -> float | None:
        return peak_mib(forward, image.device)


def bench(
    networks: Mapping[str, nn.Module],
    sizes: Sequence[tuple[int, int]] = SIZES,
    modes: Sequence[str] = tuple(MODES),
    *,
    runs: int = 5,
    device: str | torch.device = "auto",
    others: Mapping[str, Backend] | None = None,
    progress: Progress | None = None,
) -> Iterator[list[Timing]]:
    """Time networks side by side; one list, in the order of `networks`, per size and mode.

    Within one list all networks take turns, warm, each round in the reverse order of the last.
    What fails, as torch.compile does where there is no compiler, says so in its `Timing` and does
    not stop the others.

    Args:
        networks: by name, the first being what the others are compared with; not changed.
        sizes: heights and widths of the LR images.
        modes: keys of `MODES`, and of `others`.
        runs: timed passes per network, at least 1.
        device: auto, cpu or cuda:N.
        others: further modes, by name.
        progress: called after every round.

    Raises:
        UsageError: no such mode, a size below 1, no runs, or the device does not exist.
        ModelError: the number of a network's image channels cannot be found out.
    """
    device = resolve_device(device)
    known: dict[str, Backend] = {**{mode: TorchMode(mode) for mode in MODES}, **(others or {})}
    for mode in modes:
        if mode not in known:
            raise UsageError(unknown_name("mode", mode, known))
    if runs < 1 or any(side < 1 for size in sizes for side in size):
        raise UsageError("a benchmark needs at least 1 run and LR images of at least 1x1")
    channels = {name: get_traits(network).channels for name, network in networks.items()}
    return (
        _side_by_side(networks, channels, size, mode, known[mode], runs, device, progress)
        for size, mode in itertools.product(sizes, modes)
    )


@torch.no_grad()
def _side_by_side(
    networks: Mapping[str, nn.Module],
    channels: Mapping[str, int],
    size: tuple[int, int],
    mode: str,
    backend: Backend,
    runs: int,
    device: torch.device,
    progress: Progress | None,
) -> list[Timing]:
    passes: dict[str, Pass] = {}
    failures: dict[str, str] = {}
    peaks: dict[str, float | None] = {}
    what = f"{mode} {size[0]}x{size[1]}"
    with _room_to_compile() if mode == "compiled" else nullcontext():
        for number, (name, network) in enumerate(networks.items()):
            if progress is not None:
                progress(f"{what}, warm-up", number + 1, len(networks), {})
            try:
                image = torch.rand(1, channels[name], *size, device=device)
                forward = backend.prepare(network, image)
                warm_up(forward, device)
                peaks[name] = backend.peak_mib(network, image, forward)
                passes[name] = forward
            except Exception as error:  # a foreign forward or a missing compiler raises anything
                failures[name] = _in_one_line(error)
        times = interleave(passes, runs, device, what=what, progress=progress)
    medians = {name: median(values) for name, values in times.items()}
    base = medians.get(next(iter(networks)))
    return [
        Timing(
            size,
            mode,
            name,
            median_ms=medians.get(name),
            speedup=base / medians[name] if base is not None and name in medians else None,
            peak_mib=peaks.get(name),
            failure=failures.get(name),
        )
        for name in networks
    ]


def _room_to_compile() -> AbstractContextManager[Any]:
    """Forget what was compiled before, and let one piece of code have a version per width."""
    from torch import _dynamo  # as torch.compile itself, slow to import

    _dynamo.reset()
    names = ("recompile_limit", "accumulated_recompile_limit")
    older = ("cache_size_limit", "accumulated_cache_size_limit")  # before torch 2.7
    known = names if hasattr(_dynamo.config, names[0]) else older
    return _dynamo.config.patch({name: _MOST_VERSIONS for name in known})


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__

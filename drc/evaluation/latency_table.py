"""Measured time of single layers by their shape, kept in a file for the next search."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from drc.core.errors import RunError
from drc.core.files import write_json
from drc.evaluation.latency import steady_clock, synchronize

SCHEMA_VERSION = 1
CACHE_VARIABLE = "DRC_CACHE"

_AT_ONCE = 32
_SAMPLE_S = 0.001
_LAYER_S = 0.01
_FEWEST, _MOST = 2, 12
_LEAST_S = 1e-7


@dataclass(frozen=True)
class LayerShape:
    """All that the time of a layer depends on.

    Attributes:
        kind: `conv`, `transposed` (both 2d) or `linear`.
        weight: shape of the weight.
        image: batch, height and width of the input; of a linear layer the rows alone.
        stride, padding, dilation, output_padding, groups: as the layer has them.
        bias: whether it has one.
        channels_last: memory format of the input and the weight.
    """

    kind: Literal["conv", "transposed", "linear"]
    weight: tuple[int, ...]
    image: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = True
    channels_last: bool = False

    @property
    def channels(self) -> int:
        """Of the input."""
        return self.weight[0] if self.kind == "transposed" else self.weight[1] * self.groups

    def __str__(self) -> str:
        return " ".join(_plain(value) for value in astuple(self))

    def runner(self, device: torch.device, dtype: torch.dtype) -> Callable[[], Tensor]:
        """A call that runs the layer once, on random values."""
        weight = torch.randn(self.weight, device=device, dtype=dtype)
        writes = self.weight[1] * self.groups if self.kind == "transposed" else self.weight[0]
        bias = torch.randn(writes, device=device, dtype=dtype) if self.bias else None
        if self.kind == "linear":
            rows = torch.randn(*self.image, self.channels, device=device, dtype=dtype)
            return lambda: F.linear(rows, weight, bias)
        batch, *size = self.image
        x = torch.randn(batch, self.channels, *size, device=device, dtype=dtype)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
            weight = weight.contiguous(memory_format=torch.channels_last)
        if self.kind == "transposed":
            assert not isinstance(self.padding, str)  # torch has no names for its paddings
            padding = self.padding
            return lambda: F.conv_transpose2d(
                x, weight, bias, self.stride, padding, self.output_padding, self.groups,
                self.dilation,
            )  # fmt: skip
        return lambda: F.conv2d(
            x, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )


class LatencyTable:
    """Microseconds of layers on one device, measured when first asked for.

    What was measured goes to a file of the cache folder, which holds for this device, number of
    threads, torch version and number type; delete it to measure again. A file that cannot be read
    or written costs time, nothing else.

    Args:
        device: where the layers run.
        dtype: number type of weights and inputs.
        folder: of the cache; None for `cache_folder()`.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        folder: Path | None = None,
    ) -> None:
        self.device, self.dtype = device, dtype
        self._clock = steady_clock(device)
        self.conditions = {
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "dtype": str(dtype).removeprefix("torch."),
        }
        digest = hashlib.sha256(json.dumps(self.conditions).encode()).hexdigest()[:12]
        self.path = (folder or cache_folder()) / f"latency-{device.type}-{digest}.json"
        self._times = self._read()
        self.measured = 0

    def microseconds(self, shapes: Iterable[LayerShape]) -> dict[LayerShape, float]:
        """The time of one call of each; those not known yet are measured side by side."""
        wanted = {str(shape): shape for shape in shapes}
        missing = [shape for key, shape in sorted(wanted.items()) if key not in self._times]
        for start in range(0, len(missing), _AT_ONCE):
            self._times.update(self._measure(missing[start : start + _AT_ONCE]))
        if missing:
            self.measured += len(missing)
            self._write()
        return {shape: self._times[key] for key, shape in wanted.items()}

    @torch.no_grad()
    def _measure(self, shapes: list[LayerShape]) -> dict[str, float]:
        """The fastest of several samples; they are interleaved, as slow spells last a while."""
        runners = [shape.runner(self.device, self.dtype) for shape in shapes]
        fastest = [self._seconds(run, 1) for run in runners]
        calls = [math.ceil(_SAMPLE_S / rough) for rough in fastest]
        shares = [_LAYER_S / (n * rough) for n, rough in zip(calls, fastest, strict=True)]
        samples = [min(max(math.ceil(share), _FEWEST), _MOST) for share in shares]
        for sample in range(max(samples)):
            for index, run in enumerate(runners):
                if sample < samples[index]:
                    fastest[index] = min(fastest[index], self._seconds(run, calls[index]))
        return {
            str(shape): round(seconds * 1e6, 2)
            for shape, seconds in zip(shapes, fastest, strict=True)
        }

    def _seconds(self, run: Callable[[], Tensor], calls: int) -> float:
        """Of one call, by the mean of some; above zero, also where the clock stands still."""
        run()  # as in a network, where the input was just written, so that the caches hold it
        synchronize(self.device)
        start = self._clock()
        for _ in range(calls):
            run()
        synchronize(self.device)
        return max((self._clock() - start) / calls, _LEAST_S)

    def _read(self) -> dict[str, float]:
        try:
            content = json.loads(self.path.read_text("utf-8"))
            known = (content["schema_version"], content["conditions"])
            times = content["microseconds"].items()
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}
        if known != (SCHEMA_VERSION, self.conditions):
            return {}
        return {str(key): float(value) for key, value in times if _is_time(value)}

    def _write(self) -> None:
        self._times = {**self._read(), **self._times}  # another process may have measured meanwhile
        content = {
            "schema_version": SCHEMA_VERSION,
            "conditions": self.conditions,
            "microseconds": dict(sorted(self._times.items())),
        }
        with suppress(RunError):  # a folder that cannot be written only costs time
            write_json(self.path, content)


def cache_folder() -> Path:
    """The folder of DRC_CACHE, or `drc` beside torch's own in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(torch.hub.get_dir()).parent / "drc"


def device_name(device: torch.device) -> str:
    """The processor's name, as two machines may share a cache folder."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{next(_processor(), platform.machine())}, {capability}, {os.cpu_count()} cores"


def _processor() -> Iterator[str]:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                yield line.partition(":")[2].strip()


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _plain(value: object) -> str:
    return "x".join(map(str, value)) or "-" if isinstance(value, tuple) else str(value)

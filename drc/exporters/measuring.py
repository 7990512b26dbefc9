"""What a file costs in its runtime: time, memory, and PSNR."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from drc.core.runtime import Progress
from drc.evaluation.benchmark import evaluate
from drc.evaluation.latency import latency
from drc.evaluation.memory import forget_peak, peak_resident_mib, resident_mib
from drc.exporters.formats.base import Runtime, get_format
from drc.exporters.result import Quality, Speed
from drc.exporters.wrapper import UnitNetwork
from drc.networks.traits import Traits, set_traits

_PATIENCE = 600.0  # seconds


class RuntimeNetwork(nn.Module):
    """An opened file as a network in 0..1, for everything that measures networks."""

    def __init__(self, runtime: Runtime, traits: Traits) -> None:
        super().__init__()
        self._runtime = runtime
        set_traits(self, Traits(traits.scale, channels=traits.channels))

    def forward(self, lr: Tensor) -> Tensor:
        return torch.from_numpy(self._runtime(lr.contiguous().numpy()))


def measure_speed(
    file: Runtime,
    traits: Traits,
    lr_size: tuple[int, int],
    *,
    dense: Runtime | None = None,
    float32: Runtime | None = None,
    runs: int,
    name: str,
    progress: Progress | None = None,
) -> Speed:
    """Time a file on the CPU, in turns with what it is compared with.

    Args:
        file: opened with as many threads as torch has, as the others.
        traits: of the network.
        lr_size: height and width of the LR image.
        dense: the file of the network before compression.
        float32: the network's own file in float32, if `file` is in another precision.
        runs: timed passes per file, at least 1.
        name: as `progress` is to call it.
        progress: called after every round.
    """
    given = {"file": file, "dense": dense, "float32": float32}
    networks = {key: RuntimeNetwork(run, traits) for key, run in given.items() if run is not None}
    found = latency(networks, lr_size, runs=runs, device="cpu", what=name, progress=progress)
    times = {key: entry.median_ms for key, entry in found.items()}
    own, before = times["file"], times.get("dense")
    return Speed(
        own,
        before,
        None if before is None else before / own,
        times.get("float32"),
        lr_size,
        runs,
        torch.get_num_threads(),
    )


def measure_quality(
    network: UnitNetwork, runtime: Runtime, data: str | Path, progress: Progress | None = None
) -> Quality:
    """Compare file and network on whole images; see `drc.evaluate` for data and errors."""
    plain = evaluate(network.network, data, device="cpu", progress=progress)
    other = evaluate(RuntimeNetwork(runtime, network.traits), data, device="cpu", progress=progress)
    first, second = round(plain.psnr, 4), round(other.psnr, 4)
    return Quality(plain.data, first, second, round(first - second, 4))


def peak_mib(kind: str, path: Path, shape: tuple[int, ...]) -> float | None:
    """What the first pass of an opened file adds to a process's resident memory at most, in MiB.

    A process of its own runs it. Weights are there before, as for `drc.evaluation.memory.peak_mib`;
    working memory of kernels counts, too. None where the system does not say (Linux does), or the
    process fails.

    Args:
        kind: name of the format.
        path: the file.
        shape: of the image, `(1, C, h, w)`.
    """
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-m", __name__, kind, str(path), threads, *map(str, shape)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
        return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


def _print_peak(kind: str, path: str, threads: str, *shape: str) -> None:
    torch.set_num_threads(int(threads))
    runtime = get_format(kind).load(Path(path), int(threads))
    image = np.random.default_rng(0).random(tuple(map(int, shape)), np.float32)
    forget_peak()
    before = resident_mib()
    runtime(image)
    print(peak_resident_mib() - before)


if __name__ == "__main__":
    _print_peak(*sys.argv[1:])

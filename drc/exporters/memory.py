"""The memory that a file takes in its runtime, seen by the system, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from drc.evaluation.resident import forget_peak, peak_resident_mib, resident_mib
from drc.exporters.base import get_format

_PATIENCE = 600.0  # seconds


def peak_mib(kind: str, path: Path, shape: tuple[int, ...]) -> float | None:
    """What the first pass of an opened file adds to a process's resident memory at most, in MiB.

    Weights are there before, as for `drc.evaluation.peak_memory`; working memory of kernels counts,
    too. None where the system does not tell (Linux does), or the process fails.

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


def _measure(kind: str, path: Path, threads: int, shape: tuple[int, ...]) -> float:
    torch.set_num_threads(threads)
    runtime = get_format(kind).load(path, threads)
    image = np.random.default_rng(0).random(shape, np.float32)
    forget_peak()
    before = resident_mib()
    runtime(image)
    return peak_resident_mib() - before


def _main() -> None:
    kind, path, threads, *shape = sys.argv[1:]
    print(_measure(kind, Path(path), int(threads), tuple(map(int, shape))))


if __name__ == "__main__":
    _main()


__all__ = ["peak_mib"]

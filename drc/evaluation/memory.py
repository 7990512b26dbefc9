"""Memory: what a forward pass takes, and this process's resident memory, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import torch

from drc.evaluation.latency import Pass, synchronize

_SILENCE = ("KINETO_LOG_LEVEL", "99")  # torch's profiler would say on stderr that it starts
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


def peak_mib(forward: Pass, device: torch.device) -> float | None:
    """The most memory that tensors of one pass take at the same time, in MiB.

    On a GPU torch's allocator counts it. On a CPU torch's profiler lists what is taken and given
    back; working memory inside a kernel that does not come from torch is not among it. None where
    the profiler of this torch does not say.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        forward()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    os.environ.setdefault(*_SILENCE)
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        forward()
    try:
        events = profile.profiler.kineto_results.events()
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    except AttributeError:
        return None
    taken = most = 0
    for _, change in changes:
        taken += change
        most = max(most, taken)
    return most / 2**20


def resident_mib() -> float:
    """What is resident now, in MiB. Raises OSError where the system is no Linux."""
    return _field("VmRSS")


def peak_resident_mib() -> float:
    """The most that was, in MiB, since the process began or `forget_peak` was called last."""
    return _field("VmHWM")


def forget_peak() -> None:
    """Give freed memory back to the system, and let the peak begin anew."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    _RESET.write_text(_FORGET_PEAK)


def _field(name: str) -> float:
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return next(int(words[1]) / 2**10 for words in lines if words[0] == f"{name}:")

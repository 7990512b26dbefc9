"""The memory that a forward pass takes beyond what lies there before."""

from __future__ import annotations

import os

import torch

from drc.evaluation.latency import Pass, synchronize

_SILENCE = ("KINETO_LOG_LEVEL", "99")  # torch's profiler would say on stderr that it starts


def peak_mib(forward: Pass, device: torch.device) -> float | None:
    """The most memory that tensors of one pass take at the same time, in MiB.

    On a GPU torch's allocator counts it. On a CPU torch's profiler lists what is taken and given
    back; working memory inside a kernel that does not come from torch is not among it. None where
    the profiler of this torch cannot tell.
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


__all__ = ["peak_mib"]

"""This process's resident memory, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


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


__all__ = ["forget_peak", "peak_resident_mib", "resident_mib"]

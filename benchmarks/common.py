"""What the benchmark scripts share: where results go and what they say of themselves."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
HELD_OUT = 20
"""Images of the training folder, the last by name, on which choices are made."""

PACKAGES = ("torch", "fvcore", "numpy", "accelerate", "scipy")


def shared_folder() -> Path:
    """The folder of datasets and parity files: DRC_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("DRC_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        sys.exit(f"no datasets at {folder}; set DRC_SHARED to their folder")
    return folder


def write_result(name: str, values: dict[str, Any], tell: bool = True) -> None:
    """Write benchmarks/results/NAME.json, whole or not at all, with command, versions and date."""
    script = Path(sys.argv[0]).name
    record = {
        "command": f"python benchmarks/{shlex.join([script, *sys.argv[1:]])}",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        **values,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(json.dumps(record, indent=2) + "\n")
    new.replace(path)
    if tell:
        print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def median_seconds(work: Callable[[], object], runs: int) -> float:
    """Median wall time of `work`, after one run to warm up."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times), 4)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((li.split(":", 1)[1].strip() for li in lines if li.startswith("model name")), "")

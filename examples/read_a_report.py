"""Read the report of a run folder with nothing but the json module.

    python examples/read_a_report.py [RUN] [--steps N]

RUN is a folder that `drc compress`, `drc demo` or `drc report` has written. Without one, a short
run is made in a temporary folder first. docs/artifacts.md lists every field of the report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def make_run(steps: int) -> Path:
    """A short `drc compress` of drn_tiny on bundled photos."""
    folder = Path(tempfile.mkdtemp())
    settings = {
        "model": "drn_tiny",
        "search": {"ratio": 0.3, "patches": 16, "patch": 24},
        "recovery": {"steps": steps, "batch": 4, "patch": 24},
        "report": {"lr_size": [48, 48], "runs": 3},
    }
    (folder / "quick.yaml").write_text(json.dumps(settings))  # JSON is YAML, too
    command = [sys.executable, "-m", "drc", "compress", "--config", str(folder / "quick.yaml")]
    subprocess.run(
        [*command, "--output", str(folder / "run"), "--quiet"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder / "run"


def show(name: str, before: float | None, after: float | None) -> None:
    """One line; a figure that was not measured is null in the report and None here."""
    if before is not None and after is not None:
        print(f"{name:>16}: {before:>15,.8g} -> {after:>15,.8g}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what a report says.")
    parser.add_argument("run", type=Path, nargs="?", help="run folder [default: make one]")
    parser.add_argument("--steps", type=int, default=10, help="recovery steps of a run made here")
    arguments = parser.parse_args()
    run = arguments.run or make_run(arguments.steps)

    report = json.loads((run / "report.json").read_text("utf-8"))
    print(f"{report['model']} x{report['scale']}, weights: {report['weights']}")

    # `before` and `after` hold the same five figures.
    units = {"params": "", "macs": "", "psnr": "dB", "ssim": "", "latency_ms": ""}
    for figure, unit in units.items():
        show(f"{figure} {unit}".strip(), report["before"][figure], report["after"][figure])

    # What stands behind them.
    print(f"measured on: {report['data']['test']}, recovered: {report['recovered']}")
    print(f"MACs counted by {report['counters']['macs']} at LR {report['lr_size']}")
    for step, facts in report["steps"].items():
        print(f"{step:>16}: {facts['seconds']:.1f} s")
    for note in report["notes"]:
        print(f"note: {note}")


if __name__ == "__main__":
    main()

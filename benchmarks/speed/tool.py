"""How long the tool itself takes: start-up, tracing, search.

    python -m benchmarks.speed.tool

Targets: `drc --help` under 0.3 s; tracing drn_s under 2 s.
"""

from __future__ import annotations

import subprocess
import sys

import drc
from benchmarks.common import median_seconds, write_result
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.graph.groups import find_groups
from drc.graph.inputs import example_input
from drc.graph.trace import run_traced, trace
from drc.networks.dual import DualModel


def main() -> None:
    values: dict[str, float] = {
        "help_seconds": median_seconds(lambda: _run("-m", "drc", "--help"), 9),
        "import_drc_seconds": median_seconds(lambda: _run("-c", "import drc"), 9),
    }
    for name in ("drn_tiny", "drn_s"):
        model = drc.create_model(name)
        image = example_input(model)
        values[f"{name}_trace_seconds"] = median_seconds(
            lambda model=model, image=image: find_groups(*run_traced(model, image)), 5
        )
        values[f"{name}_trace_and_verify_seconds"] = median_seconds(lambda m=model: trace(m), 3)
        values[f"{name}_search_64_patches_seconds"] = median_seconds(lambda m=model: _search(m), 1)
    for key, seconds in values.items():
        print(f"{key:40} {seconds:8.3f}")
    write_result("speed", {"seconds": values, "search_weights": "initial"})


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def _search(model) -> None:
    loader = crop_loader(bundled_pairs(), 4, patch=32, batch=8, steps=8, seed=0)
    drc.search(model, loader, dual=DualModel(4))


if __name__ == "__main__":
    main()

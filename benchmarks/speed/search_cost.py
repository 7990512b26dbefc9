"""What search and ranking cost on DRN-S: passes, seconds and peak memory.

    python -m benchmarks.speed.search_cost
    python -m benchmarks.speed.search_cost --model drn_tiny --batch 8

Targets: at most 1/1000 of the forward-backward passes of the published recipe (12,500 for the
search and 51,840 for the ranking, of 16 crops each); under 3 minutes on two cores; peak memory at
most 1.2 times that of a training step of as many crops. Each part runs in a process of its own,
since peak memory never falls. Initial weights serve as well as trained ones here.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

from benchmarks.common import in_own_process, parser, write_result

PUBLISHED_PASSES = 12_500 + 51_840
PUBLISHED_BATCH = 16


def main() -> None:
    given = parser(__doc__, model="drn_s", batch=PUBLISHED_BATCH)
    given.add_argument("--part", choices=("search", "training"), help=argparse.SUPPRESS)
    options = given.parse_args()
    if options.part:
        work = {"search": _search, "training": _training}[options.part]
        print(json.dumps(work(options.model, options.batch)))
        return
    found = {part: _alone(part, options) for part in ("search", "training")}
    passes = found["search"]["crop_passes"] / PUBLISHED_BATCH
    result = {
        "model": options.model,
        **found,
        "passes_of_16": passes,
        "share_of_published_passes": round(passes / PUBLISHED_PASSES, 6),
        "memory_ratio": round(found["search"]["peak_mb"] / found["training"]["peak_mb"], 3),
    }
    print(json.dumps(result, indent=2))
    write_result(f"search_cost_{options.model}", result)


def _alone(part: str, options: argparse.Namespace) -> dict:
    found = in_own_process("--part", part, "--model", options.model, "--batch", options.batch)
    return sys.exit(found["failure"]) if "failure" in found else found


def _search(name: str, batch: int) -> dict:
    import drc

    model, dual, loader = _network(name, batch)
    driver = drc.Compression(
        model, loader(drc.SearchSettings().patches), drc.RunSettings(device="cpu"), dual=dual
    )
    driver.search()
    driver.prune()
    seconds = {part: facts["seconds"] for part, facts in driver.store.records().items()}
    total = sum(seconds.values())
    return {
        "crop_passes": driver.calibration(uses_data=False).passes.count,
        "seconds": round(total, 1),
        "seconds_by_part": {part: round(value, 1) for part, value in seconds.items()},
        "peak_mb": _peak(),
    }


def _training(name: str, batch: int) -> dict:
    import drc

    model, dual, loader = _network(name, batch)
    start = time.perf_counter()
    drc.finetune(model, loader(2 * batch), drc.RecoverySettings(steps=2), dual=dual, device="cpu")
    return {"steps": 2, "seconds": round(time.perf_counter() - start, 1), "peak_mb": _peak()}


def _network(name: str, batch: int) -> tuple:
    import drc
    from drc.data.bundled import bundled_pairs
    from drc.data.crops import crop_loader
    from drc.networks.dual import DualModel

    model = drc.create_model(name)

    def loader(crops: int):
        steps = -(-crops // batch)
        return crop_loader(bundled_pairs(), 4, patch=32, batch=batch, steps=steps, seed=0)

    return model, DualModel(4), loader


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()

"""drn_tiny at 30 % and 50 %: PSNR before, right after pruning, and after recovery.

    python benchmarks/drn_tiny_quality.py --steps 300

Calibration and recovery read BSDS400 less its last 20 images; Set5 and Set14 are only measured
on. Each row is the search strategy with the criterion that ranks: `allocate` and `uniform` with
dual_taylor, and `l1` (uniform widths ranked by magnitude). All rows, and the dense network
trained for as many steps ("dense"), share data, steps, batch, seed and the recovery loss. Rows
already in the result file are not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import cached_property

from common import RESULTS, shared_folder, write_result

import drc
from drc.config import FinetuneSettings
from drc.data.crops import crop_loader
from drc.data.folders import find_pairs
from drc.evaluation.bicubic import Bicubic

HELD_OUT = 20
METHODS = {
    "allocate": ("allocate", "dual_taylor"),
    "uniform": ("uniform", "dual_taylor"),
    "l1": ("uniform", "l1"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    name = f"drn_tiny_quality_{args.steps}_steps_seed_{args.seed}"
    jobs = [("dense", 0.0), *((m, r) for r in (0.3, 0.5) for m in METHODS)]
    run(Bench(args.steps, args.seed), name, jobs)


def run(bench: Bench, name: str, jobs: Sequence[tuple[str, float]]) -> None:
    """Measure the rows that the result file lacks, and write it after each."""
    path = RESULTS / f"{name}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for method, ratio in jobs:
        if not any((row["method"], row["ratio"]) == (method, ratio) for row in rows):
            rows.append({"method": method, "ratio": ratio, **bench.row(method, ratio)})
            print(rows[-1], flush=True)
        write_result(name, {**bench.facts(), "rows": rows})


class Bench:
    """One network, its data and its settings."""

    data = "BSDS400 less its last 20 images for calibration and recovery; Set5, Set14 measured"

    def __init__(self, steps: int, seed: int) -> None:
        self.folder = shared_folder() / "data"
        self.pairs = find_pairs(self.folder / "BSDS400", 4)[:-HELD_OUT]
        self.settings, self.seed = FinetuneSettings(steps=steps), seed
        self.dense, self.dual = drc.create_model("drn_tiny", weights="default", dual=True)

    def facts(self) -> dict:
        """What all rows share, and the baseline."""
        return {"data": self.data, "settings": self.settings.model_dump(), "bicubic": self.bicubic}

    @cached_property
    def bicubic(self) -> dict:
        return self.quality(Bicubic(4))

    def row(self, method: str, ratio: float) -> dict:
        start = time.perf_counter()
        pruned, params = self.dense, sum(p.numel() for p in self.dense.parameters())
        if method != "dense":
            strategy, importance = METHODS[method]
            plan = drc.search(
                self.dense,
                self.loader(8),
                ratio=ratio,
                strategy=strategy,
                dual=self.dual,
                seed=self.seed,
            )
            pruned = drc.prune(
                self.dense,
                plan,
                self.loader(8),
                importance=importance,
                dual=self.dual,
                seed=self.seed,
            )
            params = plan.budget.predicted
        searched = time.perf_counter()
        recovered = drc.finetune(
            pruned,
            lambda step: self.loader(self.settings.steps, step),
            teacher=self.dense,
            dual=self.dual,
            settings=self.settings,
            seed=self.seed,
        )
        done = time.perf_counter()
        return {
            "params": params,
            "pruned": self.quality(pruned),
            "recovered": self.quality(recovered),
            "search_seconds": round(searched - start, 1),
            "recovery_seconds": round(done - searched, 1),
            **self.further(recovered),
        }

    def further(self, recovered) -> dict:
        """What else a row tells of the recovered network."""
        return {}

    def loader(self, steps: int, start: int = 0):
        batch, patch = self.settings.batch, self.settings.patch
        return crop_loader(
            self.pairs, 4, patch=patch, batch=batch, steps=steps, seed=self.seed, start=start
        )

    def quality(self, model) -> dict:
        scores = {}
        for name in ("Set5", "Set14"):
            found = drc.evaluate(model, self.folder / "benchmark" / name)
            scores[name] = {"psnr": round(found.psnr, 3), "ssim": round(found.ssim, 4)}
        return scores


if __name__ == "__main__":
    main()

"""A network before and after the default compression, and beside it the dense one trained as long.

Calibration and recovery read BSDS400 less its last 20 images; Set5 and Set14 are only measured on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import cached_property

from common import HELD_OUT, RESULTS, shared_folder, write_result
from torch import nn

import drc
from drc.data.crops import crop_loader
from drc.data.folders import find_pairs
from drc.evaluation.benchmark import Bicubic
from drc.networks.dual import AnyDual
from drc.settings import RecoverySettings


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
    """One network, its data and its settings; a subclass makes `dense` and `dual`."""

    dense: nn.Module
    dual: AnyDual
    data = "BSDS400 less its last 20 images for calibration and recovery; Set5, Set14 measured"

    def __init__(self, steps: int, seed: int) -> None:
        self.folder = shared_folder() / "data"
        self.pairs = find_pairs(self.folder / "BSDS400", 4)[:-HELD_OUT]
        self.settings, self.seed = RecoverySettings(steps=steps), seed

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
            shared = {"dual": self.dual, "seed": self.seed}
            plan = drc.search(self.dense, self.loader(8), ratio=ratio, strategy=method, **shared)
            pruned = drc.prune(self.dense, plan, self.loader(8), **shared)
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

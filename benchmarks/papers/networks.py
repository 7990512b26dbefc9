"""SwinIR-light and DCLS x4 trained here, then searched, pruned by 30 % and recovered.

    python -m benchmarks.papers.networks swinir_light --train-steps 400 --steps 200
    python -m benchmarks.papers.networks dcls --train-steps 200 --steps 100

No published weights are used: the networks start from initial weights and learn for a few minutes,
so their PSNR is far below the papers'. What counts is the difference that compression makes; the
dense network, trained as long, stands beside it. DCLS learns from LR images blurred by random
anisotropic kernels and is measured on Set5 and Set14 blurred so (seed 0). Training, calibration
and recovery read BSDS400 less its last 20 images; Set5 and Set14 are only measured on.
"""

from __future__ import annotations

import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import drc
from benchmarks.common import (
    SCALE,
    Crops,
    cost,
    fitted_dual,
    measured_sets,
    parser,
    photos,
    quality,
    read_result,
    train_from_scratch,
    write_result,
)
from drc.data.blind_set import build_blind_set
from drc.data.degrade import Degradation
from drc.evaluation.benchmark import Bicubic
from drc.networks.traits import get_traits
from drc.settings import RecoverySettings

JOBS = (("allocate", 0.3), ("dense", 0.0))


def main() -> None:
    given = parser(__doc__, train_steps=400, steps=200, seed=0)
    given.add_argument("network", choices=("swinir_light", "dcls"))
    args = given.parse_args()
    name = f"{args.network}_{args.train_steps}_and_{args.steps}_steps_seed_{args.seed}"
    bench = Bench(args.network, args.train_steps, args.steps, args.seed)
    rows = read_result(name).get("rows", [])
    for method, ratio in JOBS:
        if not any((row["method"], row["ratio"]) == (method, ratio) for row in rows):
            rows.append({"method": method, "ratio": ratio, **bench.row(method, ratio)})
            print(rows[-1], flush=True)
        write_result(name, {**bench.facts(), "rows": rows})


class Bench:
    """One network that is trained first, its data and its settings."""

    def __init__(self, network: str, train_steps: int, steps: int, seed: int) -> None:
        self.settings, self.seed = RecoverySettings(steps=steps), seed
        self.degradation = Degradation("aniso", SCALE) if network == "dcls" else None
        self.crops = Crops(
            photos()[0], self.settings.patch, self.settings.batch, degradation=self.degradation
        )
        start = time.perf_counter()
        self.dense, training = train_from_scratch(network, self.crops, train_steps, seed)
        seconds = round(time.perf_counter() - start, 1)
        self.training = {"settings": training.model_dump(), "seconds": seconds}
        self.dual = fitted_dual(self.dense, self.crops, seed)

    @cached_property
    def sets(self) -> dict[str, Path]:
        """What is measured on, blurred for a blind network."""
        if self.degradation is None:
            return measured_sets()
        root = Path(tempfile.mkdtemp(prefix="blind-"))
        for name, folder in measured_sets().items():
            build_blind_set(folder / "HR", root / name, self.degradation, seed=0)
        return {name: root / name for name in measured_sets()}

    @cached_property
    def baseline(self) -> dict[str, Any]:
        return {
            "bicubic": quality(Bicubic(SCALE), self.sets),
            "before": {**cost(self.dense), **quality(self.dense, self.sets)},
        }

    def facts(self) -> dict[str, Any]:
        """What all rows share."""
        return {
            "data": "BSDS400 less its last 20 images to learn from; Set5, Set14 measured",
            "settings": self.settings.model_dump(),
            "training": self.training,
            **self.baseline,
        }

    def row(self, method: str, ratio: float) -> dict[str, Any]:
        """One method at one ratio; `dense` is recovered as it is."""
        start, pruned = time.perf_counter(), self.dense
        if method != "dense":
            shared = {"dual": self.dual, "seed": self.seed}
            loader = self.crops(8, 0, self.seed)
            strategy = drc.SearchSettings(strategy=method)
            plan = drc.search(self.dense, loader, ratio, settings=strategy, **shared)
            pruned = drc.prune(self.dense, plan, self.crops(8, 0, self.seed), **shared)
        searched = time.perf_counter()
        recovered = drc.finetune(
            pruned,
            lambda step: self.crops(self.settings.steps, step, self.seed),
            self.settings,
            teacher=self.dense,
            dual=self.dual,
            seed=self.seed,
        )
        done = time.perf_counter()
        return {
            **cost(recovered),
            "pruned": quality(pruned, self.sets),
            "recovered": quality(recovered, self.sets),
            "search_seconds": round(searched - start, 1),
            "recovery_seconds": round(done - searched, 1),
            "reloaded_exactly": _comes_back(recovered),
        }


def _comes_back(network: nn.Module) -> bool:
    """Whether it computes the same, bit for bit, when it comes from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        drc.save(network, path)
        again = drc.load(path)
    image = torch.rand(1, 3, 40, 33) * get_traits(network).value_range
    with torch.no_grad():
        return torch.equal(again(image), network(image))


if __name__ == "__main__":
    main()

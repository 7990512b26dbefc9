"""What each option of the recovery is worth: drn_tiny, one option changed at a time.

    python -m benchmarks.ablations.recovery --steps 40

One network is pruned once and recovered with every row's settings from the same weights, on the
same crops. Calibration and recovery read BSDS400 less its last 20 images; PSNR is that of these
20. Set5 and Set14, which other benchmarks report, are not looked at. Rows already in the result
file are not measured again.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

from torch import nn

import drc
from benchmarks.common import Crops, parser, photos, read_result, write_result
from drc.settings import RecoverySettings

ROWS: dict[str, dict[str, Any]] = {
    "default": {},
    "distill 0": {"distill": 0.0},
    "features 0.01": {"features": 0.01},
    "features 0.1": {"features": 0.1},
    "features 1": {"features": 1.0},
    "features 0.1, distill 0": {"features": 0.1, "distill": 0.0},
    "dual 0": {"dual_weight": 0.0},
    "ema 0": {"ema": 0.0},
    "lr 1e-4": {"lr": 1e-4},
    "lr 4e-4": {"lr": 4e-4},
    "lr 8e-4": {"lr": 8e-4},
    "lr 16e-4": {"lr": 16e-4},
}
"""What a row changes of the settings that all share."""


def main() -> None:
    given = parser(__doc__, steps=40, batch=4, patch=24, ratio=0.3, seed=0)
    given.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    args = given.parse_args()
    bench = Bench(args.steps, args.batch, args.patch, args.ratio, args.seed)
    name = f"recovery_ablation_{args.ratio}_{args.steps}_steps_seed_{args.seed}"
    stored = read_result(name)
    facts, rows = stored.get("facts") or bench.facts(), stored.get("rows", [])
    for label in args.rows:
        if label not in {row["row"] for row in rows}:
            rows.append({"row": label, **bench.row(ROWS[label])})
            print(rows[-1], flush=True)
            write_result(name, {"facts": facts, "rows": rows})


class Bench:
    """The networks, their data, and the settings that all rows share."""

    def __init__(self, steps: int, batch: int, patch: int, ratio: float, seed: int) -> None:
        pairs, self.held_out = photos()
        self.crops = Crops(pairs, patch, batch)
        self.settings = RecoverySettings(steps=steps, batch=batch, patch=patch)
        self.ratio, self.seed = ratio, seed
        self.dense, self.dual = drc.create_model("drn_tiny", weights="default", dual=True)

    @cached_property
    def pruned(self) -> nn.Module:
        loader = self.crops(16, 0, self.seed)
        plan = drc.search(self.dense, loader, self.ratio, dual=self.dual, seed=self.seed)
        return drc.prune(self.dense, plan, loader, dual=self.dual, seed=self.seed)

    def facts(self) -> dict[str, Any]:
        """What all rows share, and where recovery starts."""
        return {
            "data": "BSDS400: its last 20 images measured, the others for calibration and recovery",
            "ratio": self.ratio,
            "settings": self.settings.model_dump(),
            "dense": self.psnr(self.dense),
            "pruned": self.psnr(self.pruned),
        }

    def row(self, changes: dict[str, Any]) -> dict[str, Any]:
        pruned, start = self.pruned, time.perf_counter()
        recovered = drc.finetune(
            pruned,
            lambda step: self.crops(self.settings.steps, step, self.seed),
            RecoverySettings(**{**self.settings.model_dump(), **changes}),
            teacher=self.dense,
            dual=self.dual,
            seed=self.seed,
        )
        seconds = round(time.perf_counter() - start, 1)
        return {"psnr": self.psnr(recovered), "seconds": seconds}

    def psnr(self, model: nn.Module) -> float:
        return round(drc.evaluate(model, self.held_out).psnr, 3)


if __name__ == "__main__":
    main()

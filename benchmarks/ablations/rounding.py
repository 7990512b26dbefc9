"""What the multiple that widths are rounded to costs in quality and gains in time.

    python -m benchmarks.ablations.rounding drn_tiny
    python -m benchmarks.ablations.rounding benchmarks/weights/slwsr16_x4.safetensors

Each plan is cut and refitted, without recovery; PSNR is that on the last images of BSDS400, which
calibration does not see. The time is the processor's, of one thread, as a ratio to the dense
network's in the same run (median of interleaved passes at LR 96x96).
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import drc
from benchmarks.common import Crops, parser, photos, write_result
from drc.core.errors import BudgetError
from drc.networks.traits import get_traits
from drc.opening import find_dual, open_network
from drc.selection.calibration import calibrate
from drc.selection.planning import cut_by_plan, search_plans
from drc.settings import PruneSettings, SearchSettings

PASSES = 9


def main() -> None:
    given = parser(__doc__, ratios=[0.3, 0.5], images=12)
    given.add_argument("network", help="a registered name, or a file of weights; of scale 4")
    options = given.parse_args()
    torch.set_num_threads(1)
    path = options.network if Path(options.network).suffix else None
    model = open_network(None if path else options.network, path)
    traits = get_traits(model)
    pairs, held = photos()
    held, loader = held[-options.images :], Crops(pairs, 32, 8)(8)
    found = find_dual(None, path, traits)
    calibration = calibrate(model, loader, found[0] if found else None, SearchSettings(), "cpu", 0)
    dense, rows = drc.complexity(model), []
    for ratio in options.ratios:
        for budget in ("params", "macs"):
            for round_to in (4, 8, 16):
                row: dict[str, Any] = {"ratio": ratio, "budget": budget, "round_to": round_to}
                settings = SearchSettings(ratio=ratio, budget=budget, round_to=round_to)  # type: ignore[arg-type]
                try:
                    (plan,) = search_plans(model, calibration, settings, []).plans
                except BudgetError:
                    rows.append({**row, "reached": False})
                    continue
                small = cut_by_plan(model, calibration, plan, PruneSettings())
                cost = drc.complexity(small)
                row["psnr"] = round(drc.evaluate(small, held).psnr, 3)
                row["params"] = round(cost.params / dense.params, 3)
                row["macs"] = round(cost.macs / dense.macs, 3)
                row["time"] = _time_ratio(model, small)
                rows.append(row)
                print(row, flush=True)
    name = Path(options.network).stem
    values = {"dense_psnr": round(drc.evaluate(model, held).psnr, 3), "rows": rows}
    write_result(f"rounding_{name}", values)


@torch.no_grad()
def _time_ratio(dense: nn.Module, small: nn.Module) -> float:
    image = torch.rand(1, 3, 96, 96) * get_traits(dense).value_range
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(PASSES + 1):
        for network, taken in zip((dense, small), times, strict=True):
            start = time.process_time()
            network(image)
            taken.append(time.process_time() - start)
    before, after = (statistics.median(taken[1:]) for taken in times)
    return round(after / before, 3)


if __name__ == "__main__":
    main()

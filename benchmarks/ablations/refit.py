"""What each part of the closed-form refit is worth, on images held out of the training set.

    python -m benchmarks.ablations.refit drn_tiny
    python -m benchmarks.ablations.refit craft_x4 --ratios 0.3 --images 6

Widths and channels are those of the default search; only the refit differs between rows.
"""

from __future__ import annotations

import math
import time

import torch

import drc
from benchmarks.common import HELD_OUT, Crops, parser, photos, write_result
from benchmarks.rivals.networks import open_dense
from drc.graph.surgery import cut, kept_indices, removed
from drc.selection.calibration import calibrate
from drc.selection.planning import search_plans
from drc.selection.pruning import rank
from drc.selection.refit import refit
from drc.settings import PruneSettings, SearchSettings

VARIANTS: dict[str, dict | None] = {
    "none": None,
    "default": {},
    "outputs, not sums with streams": {"sums": False},
    "2048 places": {"rows": 2048},
    "32768 places": {"rows": 32768},
    "ridge 1e-2": {"ridge": 1e-2},
    "ridge 1e-4": {"ridge": 1e-4},
}


def main() -> None:
    given = parser(__doc__, ratios=[0.3, 0.5, 0.7], images=HELD_OUT, seed=0)
    given.add_argument("network", choices=("drn_tiny", "craft_x4"))
    options = given.parse_args()
    pairs, held_out = photos()
    crops = Crops(pairs, 32, 8)
    model, dual = open_dense(options.network, None, 0, crops, torch.device("cpu"))
    measured = held_out[: options.images]
    dense = _psnr(model, measured)
    rows = []
    for ratio in options.ratios:
        settings = SearchSettings(ratio=ratio)
        loader = crops(math.ceil(settings.patches / crops.batch), 0, options.seed)
        calibration = calibrate(model, loader, dual, settings, "cpu", options.seed)
        (plan,) = search_plans(model, calibration, settings, []).plans
        widths = {name: width.keep for name, width in plan.groups.items()}
        keep = rank(calibration, widths, PruneSettings())
        kept = kept_indices(calibration.graph, removed(calibration.graph, keep))
        images = torch.cat([lr for lr, _ in calibration.crops()])
        for name, variant in VARIANTS.items():
            small = cut(calibration.model, calibration.graph, keep).eval()
            start, layers = time.perf_counter(), []
            if variant is not None:
                layers = refit(calibration.model, small, images, kept, **variant)
            seconds = round(time.perf_counter() - start, 1)
            psnr = _psnr(small, measured)
            rows.append(
                {"ratio": ratio, "refit": name, "held_out_psnr": psnr, "layers": len(layers)}
            )
            print(rows[-1], seconds, flush=True)
            write_result(
                f"refit_ablation_{options.network}",
                {"images": len(measured), "dense_psnr": dense, "rows": rows},
            )


def _psnr(model: torch.nn.Module, pairs: list) -> float:
    return round(drc.evaluate(model, pairs).psnr, 3)


if __name__ == "__main__":
    main()

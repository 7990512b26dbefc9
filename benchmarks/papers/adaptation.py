"""The papers' adaptation in small: a network trained on bicubic LR images meets others.

    python -m benchmarks.papers.adaptation --steps 200

BSDS400 is split by name: pairs of bicubic LR and HR; 90 images of which only degraded LR images
are seen, without HR; and 20 held-out ones, degraded likewise, on which choices are made. Set5 and
Set14, degraded likewise, are measured beside them. `pairs` says how the LR images of pairs are
made: bicubic, as in the paper, or as the unpaired ones look (`drc.data.estimate`). Compared are the
network as it is, fine-tuned on the pairs alone for as many steps, and adapted with several weights
of the dual loss. Rows that the result file holds already are not run again.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor, nn

import drc
from benchmarks.common import (
    HELD_OUT,
    SCALE,
    measured_sets,
    parser,
    photos,
    read_result,
    write_result,
)
from drc.data.batches import BatchReader
from drc.data.crops import HeldOut, crop_loader
from drc.data.degrade import Degradation
from drc.data.estimate import estimate_degradation
from drc.data.folders import ImagePair, find_pairs
from drc.evaluation.benchmark import Bicubic
from drc.networks.dual import load_dual
from drc.networks.registry import get_preset
from drc.networks.weights import locate_dual
from drc.opening import open_network
from drc.settings import AdaptSettings, TrainSettings
from drc.training.dual_fit import fit_dual

UNPAIRED = 90
NETWORK = "drn_tiny"


def main() -> None:
    options = parser(
        __doc__, kinds=["nearest", "blur:2.5"], dual_weights=[0.1, 10.0], estimated_weights=[0.1],
        steps=200, batch=8, patch=24, lr=1e-4, seed=0, threads=1,
    ).parse_args()  # fmt: skip
    torch.set_num_threads(options.threads)
    training, held_out = photos()
    paired, unpaired = training[:-UNPAIRED], training[-UNPAIRED:]
    rows: list[dict[str, Any]] = read_result("adaptation").get("rows", [])
    for kind in options.kinds:
        name, _, sigma = kind.partition(":")
        degradation = Degradation(name, SCALE, **({"sigma": float(sigma)} if sigma else {}))
        for way in _ways(options):
            row: dict[str, Any] = {"degradation": kind, **way}
            if any(row.items() <= old.items() for old in rows):
                continue
            start = time.perf_counter()
            network = _trained(way, paired, unpaired, degradation, options)
            row.update(way, seconds=round(time.perf_counter() - start))
            row.update(_measured(network, held_out, degradation))
            rows.append(row)
            print(row, flush=True)
            write_result(
                "adaptation",
                {
                    "network": NETWORK,
                    "pairs": f"{len(paired)} of BSDS400, bicubic",
                    "unpaired": f"LR of {UNPAIRED} others of BSDS400",
                    "held_out": f"{HELD_OUT} others of BSDS400",
                    "rows": rows,
                },
                say=False,
            )


def _ways(options: argparse.Namespace) -> list[dict[str, Any]]:
    common = {
        "steps": options.steps, "batch": options.batch, "patch": options.patch, "lr": options.lr,
        "seed": options.seed,
    }  # fmt: skip
    ways: list[dict[str, Any]] = [{"row": "bicubic enlargement"}, {"row": "no adaptation"}]
    weights = {"bicubic": options.dual_weights, "estimated": options.estimated_weights}
    for pairs, duals in weights.items():
        ways.append({"row": "fine-tuned on pairs", "pairs": pairs, **common})
        for weight in duals:
            found = {"pairs": pairs, "dual_weight": weight}
            ways.append({"row": "adapted", **found, **common})
    return ways


def _trained(
    way: dict[str, Any],
    paired: list[ImagePair],
    unpaired: list[ImagePair],
    degradation: Degradation,
    options: argparse.Namespace,
) -> nn.Module:
    if way["row"] == "bicubic enlargement":
        return Bicubic(SCALE)
    model = open_network(NETWORK, None, SCALE)
    if way["row"] == "no adaptation":
        return model
    size = {"patch": way["patch"], "batch": way["batch"], "steps": way["steps"]}
    strange = crop_loader(unpaired, SCALE, seed=options.seed + 1, degradation=degradation, **size)
    look = None
    if way["pairs"] == "estimated":
        looks = {"patch": 48, "batch": 192, "steps": 1, "seed": options.seed}
        (seen,) = crop_loader(unpaired, SCALE, degradation=degradation, **looks)
        (sharp,) = crop_loader(paired, SCALE, **looks)
        look = estimate_degradation(list(seen["lr"] * 255), list(sharp["hr"] * 255), SCALE)
        way["estimate"] = "bicubic" if look is None else look.in_words()
    loader = crop_loader(paired, SCALE, seed=options.seed, degradation=look, **size)
    path = locate_dual(get_preset(NETWORK), SCALE)
    assert path is not None
    reader = BatchReader(loader, SCALE, 255.0, "cpu")
    dual = load_dual(path, SCALE) if look is None else fit_dual(reader, SCALE, 255.0)
    values = {name: way[name] for name in ("steps", "lr")}
    if way["row"] == "fine-tuned on pairs":
        settings = TrainSettings(warmup=20, **values)
        return drc.train(model, loader, settings, dual=dual, seed=options.seed)
    settings = AdaptSettings(dual_weight=way["dual_weight"], **values)
    without_hr = _WithoutHr(strange)
    return drc.adapt(model, loader, without_hr, settings, dual=dual, seed=options.seed)


class _WithoutHr:
    """The LR crops of a loader."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        for batch in self.loader:
            yield batch["lr"]


def _measured(
    network: nn.Module, held: list[ImagePair], degradation: Degradation
) -> dict[str, float]:
    """PSNR on Y, on degraded and on bicubic LR images."""
    found = {}
    sets: dict[str, list[ImagePair]] = {"held_out": held}
    for name, folder in measured_sets().items():
        sets[name] = find_pairs(folder, SCALE, "test")
    for name, pairs in sets.items():
        strange: list[tuple[Tensor, Tensor]] = list(HeldOut(pairs, SCALE, degradation))
        found[name] = round(drc.evaluate(network, strange).psnr, 3)
        found[f"{name}_bicubic_lr"] = round(drc.evaluate(network, pairs).psnr, 3)
    return found


if __name__ == "__main__":
    main()

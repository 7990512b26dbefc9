"""The papers' adaptation in small: a network trained on bicubic LR images meets others.

    python benchmarks/adaptation.py --steps 200

BSDS400 is split by name: pairs of bicubic LR and HR; 90 images of which only degraded LR images
are seen, without HR; and 20 held-out ones, degraded likewise, on which choices are made. Set5 and
Set14, degraded likewise, are measured beside them. `pairs` says how the LR images of pairs are
made: bicubic, as in the paper, or as the unpaired ones look (`drc.data.estimate`). Compared are the
network as it is, fine-tuned on the pairs alone for as many steps, and adapted with several weights
of the dual loss. Rows that the result file holds already are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from common import HELD_OUT, RESULTS, shared_folder, write_result
from torch import Tensor, nn

import drc
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

SCALE, UNPAIRED = 4, 90
NETWORK = "drn_tiny"


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    images = find_pairs(shared_folder() / "data" / "BSDS400", SCALE)
    paired, rest = images[: -HELD_OUT - UNPAIRED], images[-HELD_OUT - UNPAIRED :]
    path = RESULTS / "adaptation.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    for kind in options.kinds.split(","):
        name, _, sigma = kind.partition(":")
        degradation = Degradation(name, SCALE, **({"sigma": float(sigma)} if sigma else {}))
        for job in _jobs(options):
            row: dict[str, Any] = {"degradation": kind, **job}
            if any(row.items() <= old.items() for old in rows):
                continue
            start = time.perf_counter()
            network = _trained(job, paired, rest[:UNPAIRED], degradation, options)
            row.update(job, seconds=round(time.perf_counter() - start))
            row.update(_measured(network, rest[UNPAIRED:], degradation))
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
                tell=False,
            )


def _jobs(options: argparse.Namespace) -> list[dict[str, Any]]:
    common = {
        "steps": options.steps, "batch": options.batch, "patch": options.patch, "lr": options.lr,
        "seed": options.seed,
    }  # fmt: skip
    jobs: list[dict[str, Any]] = [{"row": "bicubic enlargement"}, {"row": "no adaptation"}]
    ways = {"bicubic": options.dual, "estimated": options.estimated_weights}
    for pairs, weights in ways.items():
        jobs.append({"row": "fine-tuned on pairs", "pairs": pairs, **common})
        for weight in weights.split(","):
            found = {"pairs": pairs, "dual_weight": float(weight)}
            jobs.append({"row": "adapted", **found, **common})
    return jobs


def _trained(
    job: dict[str, Any],
    paired: list[ImagePair],
    unpaired: list[ImagePair],
    degradation: Degradation,
    options: argparse.Namespace,
) -> nn.Module:
    if job["row"] == "bicubic enlargement":
        return Bicubic(SCALE)
    model = open_network(NETWORK, None, SCALE)
    if job["row"] == "no adaptation":
        return model
    size = {"patch": job["patch"], "batch": job["batch"], "steps": job["steps"]}
    strange = crop_loader(unpaired, SCALE, seed=options.seed + 1, degradation=degradation, **size)
    look = None
    if job["pairs"] == "estimated":
        looks = {"patch": 48, "batch": 192, "steps": 1, "seed": options.seed}
        (seen,) = crop_loader(unpaired, SCALE, degradation=degradation, **looks)
        (sharp,) = crop_loader(paired, SCALE, **looks)
        look = estimate_degradation(list(seen["lr"] * 255), list(sharp["hr"] * 255), SCALE)
        job["estimate"] = "bicubic" if look is None else look.in_words()
    loader = crop_loader(paired, SCALE, seed=options.seed, degradation=look, **size)
    path = locate_dual(get_preset(NETWORK), SCALE)
    assert path is not None
    reader = BatchReader(loader, SCALE, 255.0, "cpu")
    dual = load_dual(path, SCALE) if look is None else fit_dual(reader, SCALE, 255.0)
    values = {name: job[name] for name in ("steps", "lr")}
    if job["row"] == "fine-tuned on pairs":
        settings = TrainSettings(warmup=20, **values)
        return drc.train(model, loader, dual=dual, settings=settings, seed=options.seed)
    settings = AdaptSettings(dual_weight=job["dual_weight"], **values)
    without_hr = _WithoutHr(strange)
    return drc.adapt(model, loader, without_hr, dual=dual, settings=settings, seed=options.seed)


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
    for name in ("Set5", "Set14"):
        folder = shared_folder() / "data" / "benchmark" / name
        sets[name] = find_pairs(folder, SCALE, "test")
    for name, pairs in sets.items():
        strange: list[tuple[Tensor, Tensor]] = list(HeldOut(pairs, SCALE, degradation))
        found[name] = round(drc.evaluate(network, strange).psnr, 3)
        found[f"{name}_bicubic_lr"] = round(drc.evaluate(network, pairs).psnr, 3)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default="nearest,blur:2.5")
    parser.add_argument("--dual-weights", default="0.1,10")
    parser.add_argument("--estimated-weights", default="0.1")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=24)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""SwinIR-light and DCLS x4 trained here, then searched, pruned by 30 % and recovered.

    python benchmarks/paper_networks.py swinir_light --train-steps 400 --steps 200
    python benchmarks/paper_networks.py dcls --train-steps 200 --steps 100

No published weights are used: the networks start from initial weights and learn for a few minutes,
so their PSNR is far below the papers'. What counts is the difference that compression makes.
DCLS learns from LR images blurred by random
anisotropic kernels and is measured on Set5 and Set14 blurred so (seed 0).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import cached_property
from pathlib import Path

import torch
from quality_bench import Bench, run

import drc
from drc.data.batches import BatchReader
from drc.data.blind_set import build_blind_set
from drc.data.crops import crop_loader
from drc.data.degrade import Degradation
from drc.evaluation.complexity import complexity
from drc.networks.traits import get_traits
from drc.settings import RecoverySettings, SearchSettings
from drc.training.dual_fit import fit_dual

JOBS = (("allocate", 0.3), ("dense", 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=("swinir_light", "dcls"))
    parser.add_argument("--train-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    name = f"{args.network}_{args.train_steps}_and_{args.steps}_steps_seed_{args.seed}"
    run(PaperBench(args.network, args.train_steps, args.steps, args.seed), name, JOBS)


class PaperBench(Bench):
    """As `Bench`, on a network that is trained first."""

    def __init__(self, network: str, train_steps: int, steps: int, seed: int) -> None:
        super().__init__(steps, seed)
        self.degradation = Degradation("aniso", 4) if network == "dcls" else None
        torch.manual_seed(seed)
        initial = drc.create_model(network)
        training = RecoverySettings(steps=train_steps, distill=0.0, dual_weight=0.0, lr=4e-4)
        start = time.perf_counter()
        self.dense = drc.finetune(
            initial,
            lambda step: self.loader(train_steps, step),
            settings=training,
            seed=seed,
            progress=_tell,
        )
        self.training = {
            "settings": training.model_dump(),
            "seconds": round(time.perf_counter() - start, 1),
        }
        value_range = get_traits(self.dense).value_range
        reader = BatchReader(self.loader(8), 4, value_range, "cpu")
        steps = SearchSettings().dual_steps
        self.dual = fit_dual(reader, 4, value_range, steps=steps, seed=seed, device="cpu")

    def facts(self) -> dict:
        return {**super().facts(), "training": self.training, "before": self.before}

    @cached_property
    def before(self) -> dict:
        cost = complexity(self.dense)
        return {"params": cost.params, "macs": cost.macs, **self.quality(self.dense)}

    def further(self, recovered) -> dict:
        """Its cost, and whether it comes back from a file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.safetensors"
            drc.save(recovered, path)
            again = drc.load(path)
        image = torch.rand(1, 3, 40, 33) * get_traits(recovered).value_range
        with torch.no_grad():
            exact = torch.equal(again(image), recovered(image))
        return {"macs": complexity(recovered).macs, "reloaded_exactly": exact}

    def loader(self, steps: int, start: int = 0):
        return crop_loader(
            self.pairs,
            4,
            patch=self.settings.patch,
            batch=self.settings.batch,
            steps=steps,
            seed=self.seed,
            start=start,
            degradation=self.degradation,
        )

    def quality(self, model) -> dict:
        if self.degradation is None:
            return super().quality(model)
        scores = {}
        for name, folder in self.blind_sets.items():
            found = drc.evaluate(model, folder)
            scores[name] = {"psnr": round(found.psnr, 3), "ssim": round(found.ssim, 4)}
        return scores

    @cached_property
    def blind_sets(self) -> dict[str, Path]:
        root = Path(tempfile.mkdtemp(prefix="blind-"))
        for name in ("Set5", "Set14"):
            photos = self.folder / "benchmark" / name / "HR"
            build_blind_set(photos, root / name, self.degradation, seed=0)
        return {name: root / name for name in ("Set5", "Set14")}


def _tell(task: str, done: int, total: int, figures: dict) -> None:
    if done % 50 == 0:
        print(task, done, total, figures, flush=True)


if __name__ == "__main__":
    main()

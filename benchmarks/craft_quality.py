"""CRAFT x4, pretrained, at 20 % and 30 %: PSNR before, right after pruning, after recovery.

    python benchmarks/craft_quality.py --steps 100

Weights: shared/weights/craft_x4.pth, which spandrel reads. Data, rows and files as in
drn_tiny_quality.py; the dual model is fitted on the calibration data once, for all rows.
"""

from __future__ import annotations

import argparse
from functools import cached_property

from common import shared_folder
from drn_tiny_quality import Bench, run
from zoo.published import import_torchvision_without_its_kernels

from drc.config import SearchSettings
from drc.data.batches import BatchReader
from drc.models.dual import DualModel
from drc.models.resolve import open_network
from drc.training.dual_fit import fit_dual

JOBS = (("allocate", 0.2), ("allocate", 0.3), ("uniform", 0.3), ("dense", 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import_torchvision_without_its_kernels()
    name = f"craft_quality_{args.steps}_steps_seed_{args.seed}"
    run(CraftBench(args.steps, args.seed), name, JOBS)


class CraftBench(Bench):
    """As `Bench`, on a network that drc does not build itself."""

    def __init__(self, steps: int, seed: int) -> None:
        super().__init__(steps, seed)
        weights = shared_folder() / "weights" / "craft_x4.pth"
        self.dense = open_network(None, str(weights))
        self.dual = self.fitted_dual()

    def facts(self) -> dict:
        return {**super().facts(), "before": self.before}

    @cached_property
    def before(self) -> dict:
        return self.quality(self.dense)

    def fitted_dual(self) -> DualModel:
        reader = BatchReader(self.loader(8), 4, 1.0, "cpu")
        steps = SearchSettings().dual_steps
        return fit_dual(reader, 4, 1.0, steps=steps, seed=self.seed, device="cpu")


if __name__ == "__main__":
    main()

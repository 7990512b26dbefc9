"""What the comparison does with one network: compress it, recover it, measure it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import drc
from benchmarks.common import SCALE, Crops, cost, measured_sets, quality
from benchmarks.rivals.methods import DENSE, Method
from drc.data.folders import ImagePair
from drc.evaluation.benchmark import Bicubic
from drc.evaluation.latency import latency
from drc.networks.dual import AnyDual
from drc.settings import PruneSettings, RecoverySettings, RunSettings, SearchSettings
from drc.store.plan import fingerprint

LR_SIZE = (96, 96)
_BATCH_OF_A_PASS = 16  # of the published search, whose passes are counted in batches


@dataclass
class Bench:
    """One network, its data, and what all methods share.

    Attributes:
        model: the dense network, on `device`.
        dual: its dual model.
        crops: of the images that calibration and recovery read.
        held_out: images on which choices are made; nothing else reads them.
        recovery: settings of every recovery, less its steps.
        device: where all is done, latency included.
        runs: timed forward passes per network; 0 = no speed-up.
    """

    model: nn.Module
    dual: AnyDual
    crops: Crops
    held_out: list[ImagePair]
    recovery: RecoverySettings
    device: torch.device
    runs: int
    search: SearchSettings = field(default_factory=SearchSettings)

    def terms(self) -> dict[str, Any]:
        """Whatever a row depends on beside its method, ratio, seed and steps."""
        shared = {"patches", "round_to", "min_width", "dual_weight", "budget"}
        return {
            "weights": fingerprint(self.model),
            "data": f"{self.crops.words}; the last {len(self.held_out)} measure as held_out",
            "search": self.search.model_dump(include=shared),
            "recovery": self.recovery.model_dump(exclude={"steps"}),
        }

    def baseline(self) -> dict[str, Any]:
        """Cost and quality of the dense network, and the quality of bicubic upscaling."""
        return {
            "dense": {**cost(self.model), "quality": self.quality(self.model)},
            "bicubic": self.quality(Bicubic(SCALE)),
        }

    def compress(self, method: Method, ratio: float, seed: int) -> tuple[nn.Module, dict]:
        """The network pruned by the method, and what it is and did cost.

        Raises:
            DrcError: the method cannot do it, for example for want of narrow enough widths.
        """
        settings = SearchSettings(
            **{
                **self.search.model_dump(exclude={"front"}),
                "ratio": ratio,
                "strategy": method.strategy,
                **method.search,
            }
        )
        ranking = PruneSettings(
            importance=method.importance, reconstruct=method.reconstruct, **method.ranking
        )
        driver = drc.Compression(
            self.model,
            self.crops(math.ceil(settings.patches / self.crops.batch), 0, seed),
            RunSettings(search=settings, prune=ranking, seed=seed, device=str(self.device)),
            dual=self.dual,
            test=None,
        )
        driver.search()
        pruned = driver.prune()
        seconds = {name: facts["seconds"] for name, facts in driver.store.records().items()}
        crops = driver.calibration(uses_data=False).passes.count
        spent = {
            "crop_passes": crops,
            "passes16": crops / _BATCH_OF_A_PASS,
            "seconds": round(sum(seconds.values()), 2),
            "seconds_by_part": seconds,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }
        return pruned, {**cost(pruned), "search": spent}

    def recover(self, pruned: nn.Module, steps: int, seed: int) -> tuple[nn.Module, float]:
        """The network after `steps` of recovery, and the seconds they took."""
        start = time.perf_counter()
        recovered = drc.finetune(
            pruned,
            lambda done: self.crops(steps, done, seed),
            self.recovery.model_copy(update={"steps": steps}),
            teacher=self.model,
            dual=self.dual,
            device=self.device,
            seed=seed,
        )
        return recovered, round(time.perf_counter() - start, 1)

    def quality(self, model: nn.Module) -> dict[str, dict[str, float]]:
        """PSNR and SSIM on whole images: those held out, Set5 and Set14."""
        images = {"held_out": self.held_out, **measured_sets()}
        return quality(model, images, self.device)

    def speed(self, pruned: nn.Module) -> dict[str, Any] | None:
        """Forward times of the dense and the pruned network, taken in turn, and their ratio."""
        if not self.runs:
            return None
        networks = {DENSE: self.model, "pruned": pruned}
        found = latency(networks, LR_SIZE, runs=self.runs, device=self.device)
        dense, small = found[DENSE], found["pruned"]
        return {
            "speedup": round(dense.median_ms / small.median_ms, 3),
            "dense_ms": round(dense.median_ms, 2),
            "pruned_ms": round(small.median_ms, 2),
            "lr_size": LR_SIZE,
            "runs": dense.runs,
            "device": dense.device,
            "threads": dense.threads,
        }

"""One adaptation: its LR images without HR, and what it changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from drc.api import adapt
from drc.cli.display import is_main_process
from drc.cli.training import TrainSession, facts_of
from drc.core.distributed import process_share
from drc.core.errors import DataError, UsageError
from drc.core.files import write_json
from drc.core.runtime import eval_mode, resolve_device
from drc.data.batches import LrReader
from drc.data.crops import crop_loader
from drc.data.degrade import Degradation
from drc.data.estimate import estimate_degradation
from drc.data.folders import ImagePair, find_pairs
from drc.data.inventory import Source
from drc.data.unpaired import find_images, open_images, unpaired_loader
from drc.evaluation.benchmark import evaluate
from drc.networks.copying import copy_of
from drc.networks.dual import AnyDual, load_dual
from drc.opening import find_dual
from drc.settings import AdaptRun
from drc.store.networks import save_dual
from drc.store.run_folder import RunFolder
from drc.training.dual_fit import FIT_STEPS, fit_to_crops
from drc.training.losses import chain_loss

_TITLES = {
    "dual_loss": "dual loss on the images without HR (8-bit levels)",
    "psnr": "PSNR on the test images (dB)",
    "ssim": "SSIM on the test images",
}

_ESTIMATED_PATCHES, _ESTIMATED_CROPS = (48, 32, 24, 16), 192

_LOOKS = 16
"""Batches of unpaired crops on which the dual loss is told before and after."""


class AdaptSession(TrainSession):
    """A `TrainSession` with unpaired images. Its settings are an `AdaptRun`."""

    settings: AdaptRun

    @cached_property
    def degradation(self) -> Degradation | None:
        """What makes the LR images of pairs; None for LR files or bicubic."""
        if self.settings.data.degradation != "estimated":
            return super().degradation
        path = self.run.estimate_path
        if not path.exists():
            found = self._estimated()
            write_json(path, {"found": None if found is None else asdict(found)})
        stored = json.loads(path.read_text("utf-8"))["found"]
        return None if stored is None else Degradation(**stored)

    def _estimated(self) -> Degradation | None:
        scale, (new, sharp) = self.scale, self._looks()
        found = estimate_degradation(list(new * 255), list(sharp * 255), scale)
        words = in_words(found)
        self.display.log(f"the images without HR look {words}; those with HR are made likewise")
        return found

    def _looks(self) -> tuple[Tensor, Tensor]:
        """LR crops without HR and HR crops, of the largest size that the images have."""
        for patch in _ESTIMATED_PATCHES:
            looks: dict[str, Any] = {
                "patch": patch, "batch": _ESTIMATED_CROPS, "steps": 1, "seed": self.settings.seed
            }  # fmt: skip
            try:
                (new,) = unpaired_loader(self.without_hr, **looks)
                (sharp,) = crop_loader(self.images, self.scale, **looks)
            except DataError:
                if patch == _ESTIMATED_PATCHES[-1]:
                    raise
            else:
                break
        return new["lr"], sharp["hr"]

    @cached_property
    def dual(self) -> AnyDual | None:
        """The dual model to start from: one at hand, or one fitted to the images with HR."""
        path, traits = self.run.start_dual_path, self.traits
        if not path.exists():
            save_dual(self._first_dual(), path)
        return load_dual(path, traits.scale, traits.channels)

    def _first_dual(self) -> AnyDual:
        settings, traits = self.settings, self.traits
        found = find_dual(settings.dual, settings.weights, traits, self.degradation is None)
        if found:
            return found[0]
        self.display.log("no trained dual model is given: fitting one to the images with HR")
        options = settings.train
        crops = crop_loader(
            self.images, traits.scale, patch=options.patch, batch=options.batch, steps=_LOOKS,
            seed=settings.seed, workers=settings.data.workers, degradation=self.degradation,
        )  # fmt: skip
        return fit_to_crops(crops, traits, FIT_STEPS, settings.seed, settings.device, self.display)

    @cached_property
    def without_hr(self) -> list[Path] | list[Tensor]:
        """The files of the images without HR, or the frames of the video, decoded once."""
        return open_images(str(self.settings.data.unpaired), self.display.log)

    @property
    def unpaired(self) -> Callable[[int], Any]:
        """From a step to the batches of images without HR from there on."""
        options, data = self.settings.train, self.settings.data
        return lambda start: unpaired_loader(
            self.without_hr, patch=options.patch, batch=options.unpaired, steps=options.steps,
            seed=self.settings.seed + 1, start=start, workers=data.workers,
            cache_bytes=data.cache_bytes, share=process_share(), on_skip=self.display.log,
        )  # fmt: skip

    @cached_property
    def test_pairs(self) -> list[ImagePair]:
        folder = self.settings.data.test_data
        return [] if folder is None else find_pairs(folder, self.scale, "test")

    @property
    def sources(self) -> list[Source]:
        path = Path(str(self.settings.data.unpaired))
        files = find_images(path) if path.is_dir() else [path]
        return super().sources + [(f"without HR: {file.name}", [file]) for file in files]

    def check(self) -> None:
        if self.settings.data.unpaired is None:
            raise UsageError("which images? pass --unpaired FOLDER or VIDEO, LR images without HR")
        if not self.settings.train.dual_weight:
            raise UsageError(
                "--dual-weight is 0, and the dual loss is all that images without HR have"
            )
        super().check()

    def check_own(self) -> None:
        settings = self.settings
        find_dual(settings.dual, settings.weights, self.traits, False)
        self.open_inputs("test_pairs")
        self.unpaired(0)

    def new_folder(self, kind: str) -> RunFolder:
        """Make the run folder, with what every process and a resume start from."""
        self.folder = super().new_folder(kind)
        self.open_inputs("degradation", "dual")
        return self.folder

    def work(self, facts: dict[str, Any]) -> nn.Module:
        """Adapt; the dual loss on the images without HR, and PSNR where there is HR, are recorded.

        Both before and after, the dual loss with the dual model that each network has.
        """
        settings = self.settings
        facts["degradation"] = in_words(self.degradation)
        if is_main_process():
            facts["before"] = look(self, self.network)
        network = adapt(
            self.network, self.batches, self.unpaired, settings.train, validate=self.measure,
            dual=self.dual, device=settings.device, seed=settings.seed, files=self.files,
            progress=self.display,
        )  # fmt: skip
        if is_main_process():
            facts["after"] = look(self, network)
        return network


def in_words(degradation: Degradation | None) -> str:
    """What happens to the HR images of pairs."""
    return "shrunk by the bicubic filter" if degradation is None else degradation.in_words()


def look(session: AdaptSession, network: nn.Module) -> dict[str, float]:
    """What is measured of a network, with the present dual model.

    Returns:
        `dual_loss`, mean absolute error of the LR images given back, in 8-bit levels, on crops of
        the images without HR; with test images also `psnr` and `ssim`.
    """
    settings, traits = session.settings, session.traits
    crops = unpaired_loader(
        session.without_hr, patch=settings.train.patch, batch=settings.train.unpaired,
        steps=_LOOKS, seed=settings.seed,
    )  # fmt: skip
    place = resolve_device(settings.device)
    reader = LrReader(crops, traits.scale, traits.value_range, place, channels=traits.channels)
    model, dual = copy_of(network).to(place), copy_of(session.dual).to(place)  # type: ignore[type-var,union-attr]
    with torch.no_grad(), eval_mode(model):
        losses = [float(chain_loss(dual, model(lr), lr)) for (lr,) in reader]
    found = {"dual_loss": round(fmean(losses) * 255 / traits.value_range, 4)}
    if session.test_pairs:
        quality = evaluate(
            network, session.test_pairs, device=settings.device, progress=session.display
        )
        found.update(psnr=round(quality.psnr, 4), ssim=round(quality.ssim, 4))
    return found


def print_adaptation(session: AdaptSession, as_json: bool) -> None:
    """What came of it: files, and the figures before and after."""
    if not is_main_process():
        return
    session.display.close()
    record = session.run.read_steps()[session.step]
    told = ("degradation", "before", "after")
    facts = {**facts_of(session), **{name: record[name] for name in told}}
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    before, after = facts.pop("before"), facts.pop("after")
    for key, value in facts.items():
        print(f"{key.replace('_', ' ')}: {value}")
    for key, value in before.items():
        print(f"{_TITLES[key]}: {value:.4g} before, {after[key]:.4g} after")

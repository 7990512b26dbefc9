"""One training or adaptation: its network, its images, and what it leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from drc import __version__
from drc.api import train
from drc.cli.display import is_main_process
from drc.cli.session import BaseSession
from drc.core.distributed import is_first
from drc.core.runtime import resolve_device
from drc.data.crops import HeldOut, split_off
from drc.data.folders import ImagePair, find_pairs
from drc.data.inventory import Source, check_inventory, named, write_inventory
from drc.evaluation.benchmark import evaluate
from drc.networks.dual import AnyDual
from drc.opening import find_dual, new_dual, open_teacher
from drc.settings import TrainRun
from drc.store.networks import save, save_dual
from drc.store.run_folder import RunFolder
from drc.training.distill import require_weight, teacher_factor
from drc.training.loop import TrainingFiles
from drc.training.metrics import require_tracker
from drc.training.run import Measure

_MUCH_WAITING = 0.1  # of the training time


@dataclass
class TrainSession(BaseSession):
    """What `drc train` and `drc adapt` share."""

    settings: TrainRun
    at_work: bool = False

    @property
    def running(self) -> str | None:
        return self.step if self.at_work else None

    @property
    def step(self) -> str:
        """What `steps.json` calls the work: `train` or `adapt`."""
        return self.command.removeprefix("drc ")

    @cached_property
    def teacher(self) -> nn.Module | None:
        options = self.settings.train
        if options.teacher is None:
            return None
        require_weight(options)
        teacher = open_teacher(options.teacher, self.scale, self.display)
        teacher_factor(self.traits, teacher)
        return teacher

    @cached_property
    def dual(self) -> AnyDual | None:
        """The dual model to start from: one at hand, or an untrained one."""
        settings = self.settings
        if not settings.train.dual_weight:
            return None
        found = find_dual(settings.dual, settings.weights, self.traits, self.degradation is None)
        return found[0] if found else new_dual(self.network, settings.train, settings.seed)

    @cached_property
    def pairs(self) -> tuple[list[ImagePair], list[ImagePair]]:
        """Images to train on, and held-out ones. Raises DataError."""
        data, scale, images = self.settings.data, self.scale, self.images
        every = self.settings.train.validate_every
        if data.val_data == "none" or (data.val_data is None and not every):
            return images, []
        if data.val_data is not None:
            return images, find_pairs(data.val_data, scale, "test")[-data.val_images :]
        return split_off(images, data.val_images)

    @cached_property
    def held(self) -> HeldOut | None:
        """The held-out images, degraded as the training crops are."""
        _, held = self.pairs
        return HeldOut(held, self.scale, self.degradation) if held else None

    @property
    def measure(self) -> Measure | None:
        """PSNR on the held-out images."""
        images = self.held
        if images is None:
            return None
        return lambda network: evaluate(network, images, device=self.settings.device).psnr

    @property
    def sources(self) -> list[Source]:
        """Name and files of every image that the run depends on. Raises DataError."""
        own = self.settings.data.val_data not in (None, "none")
        return [named(pair) for pair in [*self.images, *(self.pairs[1] if own else [])]]

    def check(self) -> None:
        """Find out early, before hours of work, that an input cannot be used."""
        resolve_device(self.settings.device)
        require_tracker(self.settings.train.log_with)
        if self.folder is not None:
            check_inventory(self.folder.inventory_path, self.sources)
        self.open_inputs("network", "teacher", "pairs")
        self.check_own()
        self.require_colour(f"drc.{self.step}(model, loader)")

    def check_own(self) -> None:
        """Look at what the two commands have each in their way."""
        self.open_inputs("dual", "degradation")
        list(self.held or ())  # one that cannot be read or measured had better be known of now

    def new_folder(self, kind: str) -> RunFolder:
        """Make the run folder, with the list of the training images."""
        new = self.settings.output, self.label, self.scale, self.plain_settings()
        run = RunFolder.create(*new, kind)
        write_inventory(run.inventory_path, self.sources)
        return run

    @property
    def batches(self) -> Callable[[int], Any]:
        """From a step to the batches from there on, this process's rows of them."""
        return self.crops(self.pairs[0]).recovery(self.settings.train)

    @property
    def files(self) -> TrainingFiles:
        """Where the checkpoint and the figures go."""
        run = self.run
        return TrainingFiles(run.checkpoint_path, run.metrics_path, run.checkpoint_path.exists())

    def work(self, facts: dict[str, Any]) -> nn.Module:
        """Train; what else is to be recorded of it goes into `facts`."""
        settings = self.settings
        return train(
            self.network, self.batches, settings.train, validate=self.measure,
            teacher=self.teacher, dual=self.dual, device=settings.device, seed=settings.seed,
            files=self.files, progress=self.display,
        )  # fmt: skip


def run_training(session: TrainSession) -> None:
    """Train or adapt; writes trained.safetensors, dual.safetensors, last.ckpt and metrics.jsonl.

    The step is recorded as begun before it starts, and as finished when its networks are saved.
    """
    train_on, held = session.pairs
    session.display.log(
        f"training on {len(train_on)} images, {len(held)} held out to choose the best weights by"
    )
    run, name = session.run, session.step
    start = time.perf_counter() - float(run.read_steps().get(name, {}).get("seconds", 0.0))
    facts: dict[str, Any] = {"seconds": 0.0}

    def record(finished: bool) -> None:
        facts["seconds"] = round(time.perf_counter() - start, 3)
        if is_first():
            run.record(name, {**facts, "finished": finished})

    record(finished=False)
    session.at_work = True
    finished = False
    try:
        network = session.work(facts)
        if is_first():
            provenance = {"made_by": f"drc {__version__} {name}", "seed": session.settings.seed}
            save(network, run.trained_path, provenance)
            if session.dual is not None:
                save_dual(session.dual, run.dual_path)
        finished = True
    finally:
        record(finished)
    session.at_work = False


def print_training(session: TrainSession, as_json: bool) -> None:
    """What came of it, on stdout."""
    if not is_main_process():
        return
    session.display.close()
    facts = facts_of(session)
    if facts["waiting"] > _MUCH_WAITING:
        session.display.log(
            f"note: {facts['waiting']:.0%} of the time went into waiting for images; raise "
            "--workers, or data.cache_gb where the decoded images do not fit it"
        )
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        print(f"{key.replace('_', ' ')}: {value}")


def facts_of(session: TrainSession) -> dict[str, Any]:
    """Files, steps, time, speed and the best measurement."""
    run = session.run
    lines = [json.loads(line) for line in run.metrics_path.read_text("utf-8").splitlines()]
    measured = [line for line in lines if "validation" in line]
    best = max(measured, key=lambda line: line["validation"], default=None)
    facts: dict[str, Any] = {
        "run": str(run.path),
        "trained": str(run.trained_path),
        "metrics": str(run.metrics_path),
        "steps": session.settings.train.steps,
        "seconds": run.read_steps()[session.step]["seconds"],
        "patches_per_second": lines[-1]["patches_per_second"],
        "waiting": lines[-1]["waiting"],
    }
    if session.dual is not None:
        facts["dual"] = str(run.dual_path)
    if best is not None:
        facts["best_step"], facts["best_held_out_psnr"] = best["step"], best["validation"]
    return facts

"""One training or adaptation: its network, its images, and what it leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from drc import __version__
from drc.cli.base_session import BaseSession
from drc.cli.display import is_main_process
from drc.cli.duals import find_dual
from drc.cli.errors import Interrupted
from drc.core.distributed import process_share
from drc.core.errors import UsageError
from drc.core.runtime import resolve_device
from drc.data.crops import crop_loader
from drc.data.folders import ImagePair, find_pairs
from drc.data.held_out import HeldOut, split_off
from drc.data.inventory import check_inventory, named, write_inventory
from drc.evaluation.benchmark import evaluate
from drc.networks.dual import AnyDual
from drc.opening import open_teacher
from drc.settings.runs import TrainRun
from drc.store.networks import save, save_dual
from drc.store.run_folder import RunFolder
from drc.training.distill import teacher_factor
from drc.training.metrics import require_tracker
from drc.training.validation import Measure
from drc.training_api import new_dual, require_weight, train

_MUCH_WAITING = 0.1  # of the training time


@dataclass
class TrainSession(BaseSession):
    """What `drc train` and `drc adapt` share."""

    settings: TrainRun

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
    def sources(self) -> list[tuple[str, list[Path]]]:
        """Name and files of every image that the run depends on. Raises DataError."""
        own = self.settings.data.val_data not in (None, "none")
        return [named(pair) for pair in [*self.images, *(self.pairs[1] if own else [])]]

    def check(self) -> None:
        """Find out early, before hours of work, that an input cannot be used."""
        resolve_device(self.settings.device)
        require_tracker(self.settings.train.log_with)
        if self.folder is not None:
            check_inventory(self.folder.inventory_path, self.sources)
        _ = self.network, self.teacher, self.pairs
        self.check_own()
        if self.traits.channels not in (1, 3):
            raise UsageError(
                f"folders hold RGB images and this network's have {self.traits.channels} channels; "
                f"use drc.{self.step}(model, loader) from Python, with batches of your own"
            )

    def check_own(self) -> None:
        """Look at what the two commands have each in their way."""
        _ = self.dual, self.degradation
        for _ in self.held or ():
            pass  # one that cannot be read or measured had better be known of now

    def new_folder(self, kind: str) -> RunFolder:
        """Make the run folder, with the list of the training images."""
        new = self.settings.output, self.label, self.scale, self.plain_settings()
        run = RunFolder.create(*new, kind)
        write_inventory(run.inventory_path, self.sources)
        return run

    def batches(self) -> Callable[[int], Any]:
        """From a step to the batches from there on, this process's rows of them."""
        options, data = self.settings.train, self.settings.data
        images, _ = self.pairs
        return lambda start: crop_loader(
            images,
            self.scale,
            patch=options.patch,
            batch=options.batch,
            steps=options.steps,
            seed=self.settings.seed,
            start=start,
            workers=data.workers,
            cache_bytes=data.cache_bytes,
            degradation=self.degradation,
            share=process_share(),
            on_skip=self.display.log,
        )


def run_training(session: TrainSession) -> None:
    """Train; writes trained.safetensors, dual.safetensors, last.ckpt and metrics.jsonl."""
    settings, run = session.settings, session.run
    train_on, held = session.pairs
    session.display.log(
        f"training on {len(train_on)} images, {len(held)} held out to choose the best weights by"
    )

    def work() -> nn.Module:
        return train(
            session.network,
            session.batches(),
            validate=session.measure,
            teacher=session.teacher,
            dual=session.dual,
            settings=settings.train,
            device=settings.device,
            seed=settings.seed,
            checkpoint=run.checkpoint_path,
            resume=run.checkpoint_path.exists(),
            metrics=run.metrics_path,
            progress=session.display,
        )

    finish(session, work)


def finish(
    session: TrainSession, work: Callable[[], nn.Module], facts: dict[str, Any] | None = None
) -> None:
    """Do the work, then save the network and the dual model and record the step with its facts."""
    run, name = session.run, session.step
    earlier = run.read_steps().get(name, {})
    start = time.perf_counter() - float(earlier.get("seconds", 0.0))
    finished = False
    try:
        network = work()
        if is_main_process():
            provenance = {"made_by": f"drc {__version__} {name}", "seed": session.settings.seed}
            save(network, run.trained_path, provenance)
            if session.dual is not None:
                save_dual(session.dual, run.dual_path)
        finished = True
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; go on with: drc {name} --resume --run {run.path}"
        ) from None
    finally:
        if is_main_process():
            seconds = round(time.perf_counter() - start, 3)
            run.record_step(name, {"seconds": seconds, "finished": finished, **(facts or {})})


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

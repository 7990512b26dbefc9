"""The state of one training run, and what one step changes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from drc.core.errors import ModelError, TrainingError, UsageError
from drc.core.randomness import RandomState
from drc.data.batches import BatchReader, LrReader
from drc.networks.blind import KernelEstimator, WithKernel
from drc.networks.copying import copy_of, float_copy_of
from drc.networks.dual import AnyDual
from drc.networks.traits import get_traits
from drc.settings import RecoverySettings
from drc.training.distill import Teacher, teacher_factor
from drc.training.feature_distill import FeatureDistillation
from drc.training.feed import Batch, Feed, LoaderSource, share_of
from drc.training.metrics import Meter
from drc.training.objective import TERMS, Objective
from drc.training.pieces import fewest_pieces, in_pieces
from drc.training.resume import identify, read_checkpoint, write_checkpoint
from drc.training.schedule import averaged, learning_rate

_SMALLEST_LOSS_SCALE = 2.0**-14

Measure = Callable[[nn.Module], float]
"""A network in eval mode -> how good it is; higher is better."""


@dataclass(frozen=True)
class Setup:
    """What is trained, and on what; see `drc.training.loop.run_training`."""

    model: nn.Module
    loader: LoaderSource
    settings: RecoverySettings
    teacher: nn.Module | None
    dual: AnyDual | None
    unpaired: LoaderSource | None
    validate: Measure | None
    seed: int
    checkpoint: Path | None


class Run:
    """One training run in this process.

    Args:
        accelerator: of the processes that train as one.
        device: of this process.
        setup: what is trained.

    Attributes:
        done: steps so far.
        shown: losses and rates of the last step.
        writes: this process writes the files.
    """

    def __init__(self, accelerator: Accelerator, device: torch.device, setup: Setup) -> None:
        self.accelerator, self.device, self.setup = accelerator, device, setup
        settings = self.settings = setup.settings
        self.writes = accelerator.is_main_process
        self.done = self.saved = self._announced = 0
        self.pieces = 1
        self.format = torch.channels_last if settings.channels_last else torch.contiguous_format
        traits = get_traits(setup.model)
        self.identity = identify(
            settings, setup.seed, traits.scale, setup.model, setup.teacher, setup.dual
        )
        self.student = float_copy_of(setup.model, device, self.format).train()
        self.average = averaged(self.student, settings.ema)
        self.best_value = -math.inf
        self.best: dict[str, Tensor] | None = None
        self.dual = self._own_dual(setup.dual, traits.scale)
        teacher = features = None
        if setup.teacher is not None:
            factor = teacher_factor(traits, setup.teacher)
            teacher = Teacher(setup.teacher, device, self.format, factor)
        if settings.features:
            features = FeatureDistillation(self.student, teacher.network if teacher else None)
        estimates = isinstance(setup.model, KernelEstimator)
        self.objective = Objective(
            settings, traits.value_range, teacher, self.dual, estimates, features
        )
        self.parameters = [p for p in self.student.parameters() if p.requires_grad]
        if not self.parameters:
            raise ModelError("every parameter of the network is frozen; there is nothing to train")
        if self.dual is not None:
            self.parameters += [p for p in self.dual.parameters() if p.requires_grad]
        # Not fused: that kernel ignores strides, which differ in channels_last.
        self.optimizer = torch.optim.Adam(
            self.parameters, settings.lr, (0.9, settings.beta2), foreach=True
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16")
        images: dict[str, Any] = {
            "scale": traits.scale,
            "value_range": traits.value_range,
            "channels": traits.channels,
            "device": device,
        }
        self.feeds = [Feed(setup.loader, setup.seed, partial(BatchReader, **images))]
        if setup.unpaired is not None:
            self.feeds.append(Feed(setup.unpaired, setup.seed + 1, partial(LrReader, **images)))
        self.meter = Meter()
        self.shown: dict[str, float] = {}
        self._ahead: Batch | None = None

    def prepare(self) -> None:
        """Wrap the networks for their processes, and find out what memory holds."""
        settings, network = self.settings, self.student
        model: nn.Module = WithKernel(network) if self.objective.kernel else network
        if settings.auto_batch and self.done < settings.steps:
            self.pieces = self._fewest_pieces(model)
        if settings.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        self.model = self.accelerator.prepare_model(model)
        if settings.train_dual and self.objective.dual is not None:
            self.objective.dual = self.accelerator.prepare_model(self.dual)

    def read(self) -> Batch:
        """This process's part of the next batch."""
        if self._ahead is not None:
            batch, self._ahead = self._ahead, None
            return batch
        parts: list[Tensor] = []
        for feed in self.feeds:
            whole = feed.next(self.done)
            parts += whole if feed.sharded else [share_of(x, self.accelerator) for x in whole]
        return tuple(x.contiguous(memory_format=self.format) for x in parts)

    def step(self, batch: Batch, waited: float, stop: bool) -> bool:
        """One optimizer step; returns whether some process wishes to stop after it.

        Args:
            batch: as `read` gives it.
            waited: seconds that this process waited for it.
            stop: this process wishes to.

        Raises:
            TrainingError: a loss or a gradient is not finite; no weight was changed.
        """
        began = time.perf_counter()
        rate = learning_rate(self.done, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        terms = self._backward(self.model, batch, self.pieces)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf)
        *values, gradient, stopping = self._agree(terms, norm, stop)
        self.saved = max(self.saved, self._announced)  # the first process went on, so it is written
        self._check(values[0], gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.student)
        self.done += 1
        losses = dict(zip(TERMS, values, strict=True))
        images = len(batch[0]) * self.accelerator.num_processes
        self.meter.add(losses, images, waited + time.perf_counter() - began, waited)
        self.shown = {**losses, "lr": rate, "patches/s": self.meter.rate}
        return stopping > 0

    def measure(self, validate: Measure) -> dict[str, float]:
        """Measure the averaged weights on the held-out images, and keep the best ones."""
        began = time.perf_counter()
        value = validate(copy_of(self.average.module).eval()) if self.writes else 0.0
        if self.accelerator.num_processes > 1:
            (value,) = self.accelerator.reduce(torch.tensor([value], device=self.device)).tolist()
        if value > self.best_value:
            self.best_value = value
            state = self.average.module.state_dict()
            self.best = {name: tensor.clone() for name, tensor in state.items()}
        seconds = round(time.perf_counter() - began, 3)
        return {"validation": round(value, 4), "validation_seconds": seconds}

    def save(self) -> None:
        """Write the checkpoint; raises TrainingError rather than store NaN."""
        if self.setup.checkpoint is None:
            return
        self.require_finite()
        self._announced = self.done
        if self.writes:
            write_checkpoint(self.setup.checkpoint, self.identity, self._state())
            self.saved = self.done

    def load(self, path: Path) -> None:
        """Take up the state of a checkpoint. Raises RunError when it is not one of this run."""
        state = read_checkpoint(path, self.identity)
        self.done = self.saved = self._announced = int(state["step"])
        self.student.load_state_dict(state["model"])
        if self.dual is not None:
            self.dual.load_state_dict(state["dual"])
        self.average.load_state_dict(state["average"])
        self.best_value, self.best = state["best_value"], state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.meter = Meter(**state["meter"])
        if self.done < self.settings.steps:
            for feed, saved in zip(self.feeds, state["feeds"], strict=True):
                feed.load_state_dict(saved, self.done)
        # The first process wrote its own state; the others only have to differ from it.
        if self.accelerator.process_index == 0:
            RandomState(**state["random"]).restore(self.device)

    def require_finite(self) -> None:
        """Raise TrainingError if a weight is NaN or infinite."""
        for name, tensor in self.student.named_parameters():
            if tensor.requires_grad and not torch.isfinite(tensor).all():
                raise TrainingError(f"{name} is not finite after step {self.done}; {self.kept()}")

    def result(self) -> nn.Module:
        """The best weights by validation, else the averaged ones, in a copy of the network."""
        network = copy_of(self.setup.model).eval()
        network.load_state_dict(self.best or self.average.module.state_dict())
        return network

    def kept(self) -> str:
        """What is left after a failure, and what to do."""
        amp = "" if self.settings.amp == "no" else " or turn amp off"
        if not self.saved:
            return f"no checkpoint was saved yet; lower the learning rate{amp}"
        return (
            f"the checkpoint of step {self.saved} in {self.setup.checkpoint} is kept; to start "
            f"over with a lower learning rate, delete it first{amp}"
        )

    def _backward(self, model: nn.Module, batch: Batch, pieces: int) -> Tensor:
        def work(share: float, *part: Tensor) -> Tensor:
            terms = self.objective(model, *part)
            self.scaler.scale(terms[0] * share).backward()
            return terms.detach()

        return in_pieces(batch, pieces, work)

    def _fewest_pieces(self, model: nn.Module) -> int:
        batch = self._ahead = self.read()
        weights = sum(p.numel() * p.element_size() for p in self.parameters)
        # What comes later: Adam's two averages, and one more copy for the exchange of gradients.
        spare = 3 * weights
        pieces = fewest_pieces(
            self.student, batch, lambda count: self._backward(model, batch, count), spare
        )
        if self.dual is not None:
            self.dual.zero_grad(set_to_none=True)
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.gather(torch.tensor([pieces], device=self.device))
            pieces = int(counts.max())
        return pieces

    def _agree(self, terms: Tensor, norm: Tensor, stop: bool) -> list[float]:
        """Losses, gradient norm and wish to stop, the same in every process, in one transfer."""
        values = torch.cat((terms, norm.detach()[None], terms.new_tensor([float(stop)])))
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "mean")
        return values.tolist()

    def _check(self, loss: float, gradient: float) -> None:
        """Raise TrainingError before a bad step changes a weight."""
        step = self.done + 1
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss} at step {step}; {self.kept()}")
        # fp16 gradients may overflow now and then; the scaler skips those steps.
        overflows = self.scaler.is_enabled() and self.scaler.get_scale() >= _SMALLEST_LOSS_SCALE
        if not math.isfinite(gradient) and not overflows:
            raise TrainingError(f"the gradient became {gradient} at step {step}; {self.kept()}")

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.done,
            "model": self.student.state_dict(),
            "dual": self.dual.state_dict() if self.dual else None,
            "average": self.average.state_dict(),
            "best_value": self.best_value,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "feeds": [feed.state_dict() for feed in self.feeds],
            "meter": self.meter.state_dict(),
            "random": vars(RandomState.capture(self.device)),
        }

    def _own_dual(self, dual: AnyDual | None, scale: int) -> AnyDual | None:
        if dual is None or not self.settings.dual_weight:
            return None
        if dual.scale != scale:
            raise UsageError(f"the dual model is for x{dual.scale}, the network for x{scale}")
        own = float_copy_of(dual, self.device, self.format)
        return own.requires_grad_(self.settings.train_dual)

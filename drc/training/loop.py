"""Recovery of a compressed network: one loop for a CPU, a GPU or several processes."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from drc.config import FinetuneSettings
from drc.errors import ModelError, TrainingError, UsageError
from drc.models.blind import KernelEstimator, WithKernel
from drc.models.dual import AnyDual
from drc.models.traits import get_traits
from drc.runtime import Progress, resolve_device
from drc.training.distill import Teacher, private_copy, teacher_factor
from drc.training.ema import Ema
from drc.training.feature_distill import compare
from drc.training.feed import Batch, Feed, LoaderSource
from drc.training.interrupt import Interruption
from drc.training.metrics import Meter, MetricsFile
from drc.training.objective import TERMS, Objective
from drc.training.processes import apart, join_processes, losses_told, share_of
from drc.training.randomness import RandomState, isolated
from drc.training.resume import identify, read_checkpoint, write_checkpoint
from drc.training.schedule import learning_rate

_SMALLEST_LOSS_SCALE = 2.0**-14


def finetune(
    model: nn.Module,
    loader: LoaderSource,
    *,
    teacher: nn.Module | None = None,
    dual: AnyDual | None = None,
    settings: FinetuneSettings | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    metrics: Path | str | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a network to recover its quality and return the average of its weights.

    The loss is `primal * L1(P(x), y) + distill * L1(P(x), teacher(x)) + dual_weight * L1(D(P(x)),
    x)`, summed over the levels of a pyramid, in the network's own range. With `features`, layers
    are compared too, as `FeatureDistillation` does. A network that estimates
    a blur kernel (`drc.models.blind`) also learns that, by `kernel_weight * L1(kernel, target)`,
    the target being what the LR images, compared with bicubic ones, show of their blur.

    Under `torchrun` or `accelerate launch` every process reads the same batches and trains on its
    share of each, so a batch keeps its size; only the first process writes. On the CPU, one seed
    gives one result, bit for bit, interrupted and resumed or not.

    Args:
        model: the network; it is not changed. Parameters that need no gradient stay as they are.
        loader: batches as `drc.data.batches.unpack` accepts them, read again whenever they end;
            or a function that takes a step and gives the batches from there on.
        teacher: the dense network to distil from, or a larger one of the same scale, whose range
            of values may differ; None for none.
        dual: the dual model; None for none. With `train_dual` it is trained too, in place.
        settings: see `FinetuneSettings`; its `batch` and `patch` are up to the loader.
        device: auto, cpu or cuda:N; each of several processes uses its own.
        seed: of all random numbers here; the caller's generators are left as they were.
        checkpoint: file to write every `checkpoint_every` steps, at the end and on Ctrl-C.
        resume: go on from `checkpoint`; from the start when that file does not exist yet.
        metrics: file for one line of JSON per `log_every` steps.
        progress: called after each step.

    Returns:
        A new network on the device of `model`, in eval mode.

    Raises:
        TrainingError: a loss or a weight is NaN or infinite; the last checkpoint is kept.
        RunError: a checkpoint that is corrupt or of another run, or a file that cannot be written.
        UsageError, ModelError, DataError: unusable settings, networks or batches.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
    """
    settings = settings or FinetuneSettings()
    checkpoint = Path(checkpoint) if checkpoint is not None else None
    metrics = Path(metrics) if metrics is not None else None
    if resume and checkpoint is None:
        raise UsageError("resuming needs the path of a checkpoint")
    accelerator, where = join_processes(resolve_device(device))
    with isolated(seed + accelerator.process_index, where), apart():
        run = _Run(accelerator, where, model, loader, teacher, dual, settings, seed, checkpoint)
        if resume and checkpoint is not None and checkpoint.exists():
            run.load(checkpoint)
        run.train(MetricsFile(metrics if run.writes else None, run.done), progress)
        result = run.result(model)
        if dual is not None and run.dual is not None and settings.train_dual:
            dual.load_state_dict(run.dual.state_dict())
    return result


class _Run:
    """The state of one training run and what changes it."""

    def __init__(
        self,
        accelerator: Accelerator,
        device: torch.device,
        model: nn.Module,
        loader: LoaderSource,
        teacher: nn.Module | None,
        dual: AnyDual | None,
        settings: FinetuneSettings,
        seed: int,
        checkpoint: Path | None,
    ) -> None:
        self.accelerator, self.device, self.settings = accelerator, device, settings
        self.checkpoint = checkpoint
        self.writes = accelerator.is_main_process
        self.done = self.saved = 0
        self.format = torch.channels_last if settings.channels_last else torch.contiguous_format
        traits = get_traits(model)
        self.identity = identify(settings, seed, traits.scale, model, teacher, dual)
        self.student = private_copy(model, device, self.format).train()
        self.dual = self._own_dual(dual, traits.scale)
        own = None
        if teacher is not None:
            own = Teacher(teacher, device, self.format, teacher_factor(traits, teacher))
        self.objective = Objective(
            settings,
            traits.value_range,
            own,
            self.dual,
            isinstance(model, KernelEstimator),
            compare(self.student, own) if settings.features else None,
        )
        self.parameters = [p for p in self.student.parameters() if p.requires_grad]
        if not self.parameters:
            raise ModelError("every parameter of the network is frozen; there is nothing to train")
        if self.dual is not None:
            self.parameters += [p for p in self.dual.parameters() if p.requires_grad]
        # Not fused: that kernel ignores strides, which differ in channels_last.
        self.optimizer = torch.optim.Adam(self.parameters, settings.lr, foreach=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16")
        self.ema = Ema(self.student, settings.ema)
        self.feed = Feed(loader, traits.scale, traits.value_range, device, seed, traits.channels)
        self.meter = Meter()
        self.shown: dict[str, float] = {}

    def train(self, metrics: MetricsFile, progress: Progress | None) -> None:
        """Do the steps that are left."""
        with losses_told(lambda: self.done, lambda: self.saved, self.checkpoint):
            self._train(metrics, progress)

    def _train(self, metrics: MetricsFile, progress: Progress | None) -> None:
        network = WithKernel(self.student) if self.objective.kernel else self.student
        wrapped = self.accelerator.prepare_model(network)
        if self.settings.train_dual and self.objective.dual is not None:
            self.objective.dual = self.accelerator.prepare_model(self.dual)
        with Interruption() as interruption:
            while self.done < self.settings.steps:
                batch = self._read(interruption)
                stop = self._step(wrapped, batch, interruption)
                if self.writes and progress is not None:
                    progress("finetune", self.done, self.settings.steps, self.shown)
                self._record(metrics)
                if stop or self._due(self.settings.checkpoint_every):
                    self.save()
                if stop:
                    raise KeyboardInterrupt
        _require_finite(self.student, self.done, self._kept())
        self.accelerator.wait_for_everyone()

    def _read(self, interruption: Interruption) -> Batch:
        """This process's part of the next batch."""
        try:
            lr, hr = self.feed.next(self.done)
        except RuntimeError as error:
            if not interruption.requested:
                raise
            # Ctrl-C ended the loader's workers too; the run itself is whole.
            self.save()
            raise KeyboardInterrupt from error
        lr, hr = (share_of(x, self.accelerator) for x in (lr, hr))
        return lr.contiguous(memory_format=self.format), hr.contiguous(memory_format=self.format)

    def _step(self, model: nn.Module, batch: Batch, interruption: Interruption) -> bool:
        """One optimizer step; returns whether some process wishes to stop after it."""
        rate = learning_rate(self.done, self.settings.steps, self.settings.lr, self.settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.objective(model, *batch)
        self.scaler.scale(terms[0]).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf)
        *values, gradient, stop = self._agree(terms.detach(), norm, interruption.requested)
        self._check(values[0], gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update(self.student)
        self.done += 1
        losses = dict(zip(TERMS, values, strict=True))
        self.meter.add(losses)
        self.shown = {**losses, "lr": rate}
        return stop > 0

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
            raise TrainingError(f"the loss became {loss} at step {step}; {self._kept()}")
        # fp16 gradients may overflow now and then; the scaler skips those steps.
        overflows = self.scaler.is_enabled() and self.scaler.get_scale() >= _SMALLEST_LOSS_SCALE
        if not math.isfinite(gradient) and not overflows:
            raise TrainingError(f"the gradient became {gradient} at step {step}; {self._kept()}")

    def _kept(self) -> str:
        """What is left after a failure, and what to do."""
        amp = "" if self.settings.amp == "no" else " or turn amp off"
        if not self.saved:
            return f"no checkpoint was saved yet; lower the learning rate{amp}"
        return (
            f"the checkpoint of step {self.saved} in {self.checkpoint} is kept; to start over with "
            f"a lower learning rate, delete it first{amp}"
        )

    def _record(self, metrics: MetricsFile) -> None:
        if self.writes and self._due(self.settings.log_every):
            rate, seconds = self.shown["lr"], round(self.meter.seconds, 3)
            metrics.append({"step": self.done, **self.meter.read(), "lr": rate, "seconds": seconds})

    def _due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.settings.steps

    def save(self) -> None:
        """Write the checkpoint; raises TrainingError rather than store NaN."""
        if self.checkpoint is None:
            return
        _require_finite(self.student, self.done, self._kept())
        self.saved = self.done
        if self.writes:
            write_checkpoint(self.checkpoint, self.identity, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.done,
            "model": self.student.state_dict(),
            "dual": self.dual.state_dict() if self.dual else None,
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "feed": self.feed.state_dict(),
            "meter": self.meter.state_dict(),
            "random": RandomState.capture(self.device).to_plain(),
        }

    def load(self, path: Path) -> None:
        """Take up the state of a checkpoint. Raises RunError when it is not one of this run."""
        state = read_checkpoint(path, self.identity)
        self.done = self.saved = int(state["step"])
        self.student.load_state_dict(state["model"])
        if self.dual is not None:
            self.dual.load_state_dict(state["dual"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.meter.load_state_dict(state["meter"])
        if self.done < self.settings.steps:
            self.feed.load_state_dict(state["feed"], self.done)
        # The first process wrote its own state; the others only have to differ from it.
        if self.accelerator.process_index == 0:
            RandomState.from_plain(state["random"]).restore(self.device)

    def result(self, model: nn.Module) -> nn.Module:
        averaged = deepcopy(model).eval()
        self.ema.copy_to(averaged)
        return averaged

    def _own_dual(self, dual: AnyDual | None, scale: int) -> AnyDual | None:
        if dual is None or not self.settings.dual_weight:
            return None
        if dual.scale != scale:
            raise UsageError(f"the dual model is for x{dual.scale}, the network for x{scale}")
        own = private_copy(dual, self.device, self.format)
        return own.requires_grad_(self.settings.train_dual)


def _require_finite(model: nn.Module, step: int, kept: str) -> None:
    for name, tensor in model.named_parameters():
        if tensor.requires_grad and not torch.isfinite(tensor).all():
            raise TrainingError(f"{name} is not finite after step {step}; {kept}")


__all__ = ["finetune"]

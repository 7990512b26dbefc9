"""The training loop: one for a CPU, a GPU or several processes."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from drc.core.distributed import join_processes, losses_named
from drc.core.errors import DrcError, TrainingError, UsageError
from drc.core.randomness import isolated
from drc.core.runtime import Progress, resolve_device
from drc.networks.dual import AnyDual
from drc.settings import RecoverySettings
from drc.training.feed import Batch, LoaderSource
from drc.training.metrics import MetricsFile
from drc.training.pieces import is_out_of_memory
from drc.training.run import Measure, Run, Setup

_LOADER_LOST = "DataLoader worker"
_COMPILERS = ("torch._dynamo", "torch._inductor")
_PATIENCE = 1.0  # seconds; launchers and terminals may both pass on one Ctrl-C
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class TrainingFiles:
    """What a training writes, and whether it goes on from there.

    Attributes:
        checkpoint: file to write every `checkpoint_every` steps, at the end and on Ctrl-C.
        metrics: file for one line of JSON per `log_every` steps.
        resume: go on from `checkpoint`; from the start when that file does not exist yet.

    Raises:
        UsageError: `resume` without a checkpoint.
    """

    checkpoint: Path | str | None = None
    metrics: Path | str | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise UsageError("resuming needs the path of a checkpoint")


_NO_FILES = TrainingFiles()


def run_training(
    model: nn.Module,
    loader: LoaderSource,
    settings: RecoverySettings,
    *,
    teacher: nn.Module | None = None,
    dual: AnyDual | None = None,
    unpaired: LoaderSource | None = None,
    validate: Measure | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    files: TrainingFiles = _NO_FILES,
    progress: Progress | None = None,
    title: str = "finetune",
) -> nn.Module:
    """Train a network and return the average of its weights, or the best by validation.

    The loss is `primal * L1(P(x), y) + distill * L1(P(x), teacher(x)) + dual_weight * L1(D(P(x)),
    x)`, summed over the levels of a pyramid, in the network's own range. With `features`, layers
    are compared too, as `FeatureDistillation` does. A network that estimates
    a blur kernel (`drc.networks.blind`) also learns that, by `kernel_weight * L1(kernel, target)`,
    the target being what the LR images, compared with bicubic ones, show of their blur.
    Unpaired LR images take part in the dual loss alone.

    Under `torchrun` or `accelerate launch` every process trains on its share of each batch, so a
    batch keeps its size; only the first process writes. On the CPU, one seed
    gives one result, bit for bit, interrupted and resumed or not.

    Args:
        model: the network; it is not changed. Parameters that need no gradient stay as they are.
        loader: batches as `drc.data.batches.unpack` accepts them, read again whenever they end;
            or a function that takes a step and gives the batches from there on.
        settings: see `RecoverySettings`; its `batch` and `patch` are up to the loader.
        teacher: the dense network to distil from, or a larger one of the same scale, whose range
            of values may differ; None for none.
        dual: the dual model; None for none. With `train_dual` it is trained too, in place.
        unpaired: batches of LR images without HR, as `LrReader` takes them; None for none.
        validate: what to measure every `validate_every` steps and at the end, in the first
            process; higher is better. None to measure nothing.
        device: auto, cpu or cuda:N; each of several processes uses its own.
        seed: of all random numbers here; the caller's generators are left as they were.
        files: what to write and where to go on.
        progress: called after each step.
        title: what `progress` calls the work.

    Returns:
        A new network on the device of `model`, in eval mode.

    Raises:
        TrainingError: a loss or a weight is NaN or infinite, or memory is exhausted; the last
            checkpoint is kept.
        RunError: a checkpoint that is corrupt or of another run, or a file that cannot be written.
        UsageError, ModelError, DataError: unusable settings, networks or batches.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
    """
    path = Path(files.checkpoint) if files.checkpoint is not None else None
    accelerator, where = join_processes(resolve_device(device))
    with isolated(seed + accelerator.process_index, where):
        setup = Setup(model, loader, settings, teacher, dual, unpaired, validate, seed, path)
        run = Run(accelerator, where, setup)
        if files.resume and path is not None and path.exists():
            run.load(path)
        log = Path(files.metrics) if files.metrics is not None and run.writes else None
        with (
            MetricsFile(log, run.done, settings.log_with) as lines,
            losses_named(lambda: _lost(run)),
        ):
            _train(run, lines, progress, title)
        result = run.result()
        if dual is not None and run.dual is not None and settings.train_dual:
            dual.load_state_dict(run.dual.state_dict())
    return result


class Interruption:
    """Inside `with`, the first Ctrl-C only sets `requested`; one after a second stops at once.

    So what is saved is whole. SIGTERM does the same: torchrun sends it to the processes that are
    left when one has failed, and batch systems when the time is up.
    """

    def __init__(self) -> None:
        self.requested = False
        self._first = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        # Only the main thread gets signals, and a run that ignores Ctrl-C goes on doing so.
        main = threading.current_thread() is threading.main_thread()
        for number in _SIGNALS if main else ():
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and time.monotonic() - self._first > _PATIENCE:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._first = True, time.monotonic()


def _train(run: Run, metrics: MetricsFile, progress: Progress | None, title: str) -> None:
    """Do the steps that are left."""
    settings = run.settings
    run.prepare()
    with Interruption() as interruption:
        while run.done < settings.steps:
            began = time.perf_counter()
            batch = _read(run, interruption)
            waited = time.perf_counter() - began
            stop = _step(run, batch, waited, interruption.requested)
            record: dict[str, float] = {}
            if _due(run, settings.log_every):
                means, rate = run.meter.read(), run.shown["lr"]
                record = {**means, "lr": rate, "seconds": round(run.meter.seconds, 3)}
            validate = run.setup.validate
            if validate is not None and _due(run, settings.validate_every):
                try:
                    record.update(run.measure(validate))
                except DrcError:  # of the images; the steps up to here are good
                    run.save()
                    raise
                run.shown["validation"] = record["validation"]
            if record:
                metrics.append({"step": run.done, **record})
            if run.writes and progress is not None:
                progress(title, run.done, settings.steps, run.shown)
            if stop or _due(run, settings.checkpoint_every):
                run.save()
            if stop:
                raise KeyboardInterrupt
    run.require_finite()
    run.accelerator.wait_for_everyone()


def _read(run: Run, interruption: Interruption) -> Batch:
    try:
        return run.read()
    except RuntimeError as error:
        if _LOADER_LOST in str(error) and not interruption.requested:
            raise TrainingError(_without_loader(run)) from error
        if not interruption.requested:
            raise
        # Ctrl-C ended the loader's workers too; the run itself is whole.
        run.save()
        raise KeyboardInterrupt from error


def _step(run: Run, batch: Batch, waited: float, stop: bool) -> bool:
    try:
        return run.step(batch, waited, stop)
    except (RuntimeError, MemoryError) as error:
        if _LOADER_LOST in str(error):
            raise TrainingError(_without_loader(run)) from error
        if run.settings.compile and type(error).__module__.startswith(_COMPILERS):
            raise TrainingError(
                f"torch.compile failed ({str(error).strip().splitlines()[0]}); install a C++ "
                "compiler, or leave --compile out"
            ) from error
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory at step {run.done + 1}, with {len(batch[0])} crops of "
            f"{batch[0].shape[-2]}x{batch[0].shape[-1]} in this process; use a smaller --batch or "
            "--patch, or --auto-batch, which sends a batch through in parts"
        ) from error


def _lost(run: Run) -> TrainingError:
    kept = "no checkpoint was saved yet"
    if run.saved and run.setup.checkpoint is not None:
        kept = f"the checkpoint of step {run.saved} in {run.setup.checkpoint} is kept"
    return TrainingError(
        f"another process of this job was lost at step {run.done + 1} (killed, or out of "
        f"memory?); {kept}; start the same command again with --resume"
    )


def _without_loader(run: Run) -> str:
    kept = f"the checkpoint of step {run.saved} is kept" if run.saved else "no checkpoint was saved"
    return (
        f"a process that loads images was lost after step {run.done} (killed, or out of memory?); "
        f"{kept}; use fewer --workers, and --resume"
    )


def _due(run: Run, every: int) -> bool:
    """Whether something is due that is done every so many steps and, at 0 too, at the end."""
    return run.done == run.settings.steps or (every > 0 and run.done % every == 0)

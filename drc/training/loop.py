"""The training loop: one for a CPU, a GPU or several processes."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from drc.core.distributed import join_processes, losses_named
from drc.core.errors import DrcError, TrainingError, UsageError
from drc.core.randomness import isolated
from drc.core.runtime import Progress, resolve_device
from drc.networks.dual import AnyDual
from drc.settings.training import RecoverySettings
from drc.training.feed import Batch, LoaderSource
from drc.training.interrupt import Interruption
from drc.training.metrics import MetricsFile
from drc.training.pieces import is_out_of_memory
from drc.training.run import Job, Run
from drc.training.validation import Measure

_LOADER_LOST = "DataLoader worker"
_COMPILERS = ("torch._dynamo", "torch._inductor")


def finetune(
    model: nn.Module,
    loader: LoaderSource,
    *,
    teacher: nn.Module | None = None,
    dual: AnyDual | None = None,
    settings: RecoverySettings | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    metrics: Path | str | None = None,
    progress: Progress | None = None,
    unpaired: LoaderSource | None = None,
    validate: Measure | None = None,
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
        teacher: the dense network to distil from, or a larger one of the same scale, whose range
            of values may differ; None for none.
        dual: the dual model; None for none. With `train_dual` it is trained too, in place.
        settings: see `RecoverySettings`; its `batch` and `patch` are up to the loader.
        device: auto, cpu or cuda:N; each of several processes uses its own.
        seed: of all random numbers here; the caller's generators are left as they were.
        checkpoint: file to write every `checkpoint_every` steps, at the end and on Ctrl-C.
        resume: go on from `checkpoint`; from the start when that file does not exist yet.
        metrics: file for one line of JSON per `log_every` steps.
        progress: called after each step.
        unpaired: batches of LR images without HR, as `LrReader` takes them; None for none.
        validate: what to measure every `validate_every` steps and at the end, in the first
            process; higher is better. None to measure nothing.
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
    settings = settings or RecoverySettings()
    path = Path(checkpoint) if checkpoint is not None else None
    if resume and path is None:
        raise UsageError("resuming needs the path of a checkpoint")
    accelerator, where = join_processes(resolve_device(device))
    with isolated(seed + accelerator.process_index, where):
        job = Job(model, loader, teacher, dual, settings, seed, path, unpaired, validate)
        run = Run(accelerator, where, job)
        if resume and path is not None and path.exists():
            run.load(path)
        log = Path(metrics) if metrics is not None and run.writes else None
        with (
            MetricsFile(log, run.done, settings.log_with) as lines,
            losses_named(lambda: _lost(run)),
        ):
            _train(run, lines, progress, title)
        result = run.result()
        if dual is not None and run.dual is not None and settings.train_dual:
            dual.load_state_dict(run.dual.state_dict())
    return result


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
            if run.job.validate is not None and _due(run, settings.validate_every):
                record.update(_measured(run))
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


def _measured(run: Run) -> dict[str, float]:
    try:
        return run.measure()
    except DrcError:  # of the images; the steps up to here are good
        run.save()
        raise


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
    if run.saved and run.job.checkpoint is not None:
        kept = f"the checkpoint of step {run.saved} in {run.job.checkpoint} is kept"
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


__all__ = ["finetune"]

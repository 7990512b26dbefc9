"""drc from Python: search, prune, finetune, or compress, which does all three; train and adapt."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from drc.compression import Compression
from drc.core.distributed import is_first, together
from drc.core.errors import UsageError
from drc.core.runtime import Progress
from drc.data.folders import ImagePair
from drc.evaluation.benchmark import evaluate
from drc.networks.dual import AnyDual
from drc.networks.traits import get_traits, plain_network
from drc.opening import new_dual, open_teacher
from drc.report.collect import TestData
from drc.report.schema import Report
from drc.selection.criteria.base import get_criterion
from drc.settings import (
    AdaptSettings,
    PruneSettings,
    RecoverySettings,
    RunSettings,
    SearchSettings,
    TrainSettings,
    validated,
)
from drc.store.networks import save
from drc.store.plan import Plan
from drc.training.distill import require_weight, teacher_factor
from drc.training.feed import LoaderSource
from drc.training.loop import TrainingFiles, run_training
from drc.training.run import Measure

Loader = Iterable[Any]
Device = str | torch.device
Validation = str | Path | list[ImagePair] | Measure


@dataclass(frozen=True)
class Result:
    """What `compress` returns.

    Attributes:
        model: the compressed, recovered network, in eval mode.
        plan: the widths that the search found.
        report: everything measured, before and after.
    """

    model: nn.Module
    plan: Plan
    report: Report

    def save(self, path: Path | str) -> None:
        """Write the network to a safetensors file that `drc.load` or `drc.apply` reads."""
        save(self.model, path, {"made_by": "drc.compress", "notes": self.report.notes})


def search(
    model: nn.Module,
    loader: Loader,
    ratio: float | Sequence[float] = 0.3,
    *,
    settings: SearchSettings | None = None,
    dual: AnyDual | None = None,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan | list[Plan]:
    """Find how many channels every group keeps, by the dual regression loss.

    Args:
        model: any SR network `(N, C, h, w)` -> `(N, C, h * scale, w * scale)`, or a pyramid of
            images; it is not changed.
        loader: calibration batches, `(lr, hr)` or dicts with `lr`/`hr` or `lq`/`gt`, in 0..1 or
            in the network's declared range. Training data, never the test set.
        ratio: the fraction of the budget to remove, between 0 and 1; several give a plan each,
            from one look at the data.
        settings: what the budget counts, the strategy, the rounding, and how many crops are
            looked at.
        dual: a trained dual model; None fits one on the loader first, and the plan says so.
        device: auto, cpu or cuda:N.
        seed: of every random choice; on a CPU one seed gives one plan, bit for bit, but for what
            is measured: a `latency` budget and widths rounded to `auto`.
        progress: told about every crop.

    Returns:
        The plan; its predicted cost is within the limit, and at most 1 % of it below wherever
        the widths allow; where they do not, the plan's notes say so. For several ratios a list,
        in their order; `plan.budget.ratio` tells them apart. One that cannot be reached has no
        plan, of which a warning tells.

    Raises:
        BudgetError: no widths meet the budget, or any of several; the message says what can be
            reached.
        ModelError, DataError, UsageError: the network, the batches or a setting cannot be used.
    """
    chosen = _run_settings(ratio, settings, device=device, seed=seed)
    driver = _driver(model, loader, chosen, dual=dual, progress=progress)
    with together(device):
        found = driver.search()
    for reason in found.missed.values() if is_first() else ():
        warnings.warn(reason, stacklevel=2)
    return found.plans if isinstance(ratio, Sequence) else found.plans[0]


def prune(
    model: nn.Module,
    plan: Plan,
    loader: Loader | None = None,
    *,
    settings: PruneSettings | None = None,
    calibration: SearchSettings | None = None,
    dual: AnyDual | None = None,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """Rank the channels, remove those the plan has no room for, and return the small network.

    Args:
        model: the network that was searched; it is not changed.
        plan: the result of `search` on the same weights.
        loader: calibration batches, as for `search`; criteria that look at weights need none.
        settings: the criterion, and whether the layers that read removed channels are refitted;
            they are not where there is no loader.
        calibration: how many crops are looked at, and the weight of the dual loss.
        dual, device, seed, progress: as for `search`.

    Returns:
        An ordinary network with smaller layers, in eval mode, on the device of `model`.

    Raises:
        RunError: the plan belongs to other weights.
        UsageError, ModelError, DataError: a setting, the network or the batches cannot be used.
    """
    settings = settings or PruneSettings()
    uses_data = not get_criterion(settings.importance).data_free
    if loader is None:
        if uses_data:
            raise UsageError(f"{settings.importance} needs calibration batches; pass a loader")
        settings = settings.model_copy(update={"reconstruct": False})
    chosen = _run_settings(None, calibration, prune=settings, device=device, seed=seed)
    driver = _driver(model, loader or [], chosen, dual=dual, progress=progress)
    with together(device):
        return driver.prune(plan)


def finetune(
    model: nn.Module,
    loader: LoaderSource,
    settings: RecoverySettings | None = None,
    *,
    teacher: nn.Module | None = None,
    dual: AnyDual | None = None,
    device: Device = "auto",
    seed: int = 0,
    files: TrainingFiles | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Recover the quality of a pruned network; see `drc.training.loop.run_training`.

    Args:
        model: the pruned network; it is not changed.
        loader: batches as for `search`, or a function from a step to the batches from there on.
        settings: of the training.
        teacher: the dense network to distil from, or another of the same scale, whose range of
            values may differ; None for the one that the settings name, or none.
        dual: the dual model; None leaves the dual term out.
        device: auto, cpu or cuda:N.
        seed: of all random numbers.
        files: where checkpoints and figures go, and whether to go on from there; None for nowhere.
        progress: called after each step.

    Returns:
        A new network in eval mode, on the device of `model`.

    Raises:
        TrainingError: the loss became NaN; the last checkpoint is kept.
        RunError, DataError, UsageError: files, batches or settings cannot be used.
    """
    model, settings = plain_network(model), settings or RecoverySettings()
    return run_training(
        model, loader, settings, teacher=_teacher(model, teacher, settings), dual=dual,
        device=device, seed=seed, files=files or TrainingFiles(), progress=progress,
    )  # fmt: skip


def compress(
    model: nn.Module,
    loader: Loader,
    ratio: float = 0.3,
    *,
    search: SearchSettings | None = None,
    prune: PruneSettings | None = None,
    recovery: RecoverySettings | Literal[False] | None = None,
    test: TestData | None = "bundled",
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Search, prune, recover and measure: the whole work in one call.

    `drc.Compression` does the same step by step, and takes a dual model and a teacher.

    Args:
        model: any SR network, on its trained weights; it is not changed.
        loader: training batches `(lr, hr)` or dicts, as for `drc.search`.
        ratio: the fraction of the budget to remove, between 0 and 1.
        search, prune: settings of these steps.
        recovery: settings of the recovery, from the dense network unless they name a teacher;
            False leaves it out.
        test: what to measure on: a folder, pairs, `bundled` photos, or None to skip PSNR.
        device: auto, cpu or cuda:N.
        seed: of every random choice.
        progress: told what is being done.

    Raises:
        BudgetError: no widths meet the budget.
        DrcError: another input cannot be used; the message says which.
    """
    if isinstance(ratio, Sequence):
        raise UsageError("drc.compress takes one ratio; drc.search gives plans for several")
    learning = recovery or RecoverySettings()
    chosen = _run_settings(
        ratio, search, prune=prune or PruneSettings(), recovery=learning, device=device, seed=seed
    )
    teacher = None if recovery is False else _teacher(plain_network(model), None, learning)
    driver = _driver(model, loader, chosen, teacher=teacher, test=test, progress=progress)
    with together(device):
        report = driver.run(recovery=recovery is not False)
    return Result(driver.model, driver.store.plan(), report)


def train(
    model: nn.Module,
    loader: LoaderSource,
    settings: TrainSettings | None = None,
    *,
    validate: Validation | None = None,
    teacher: nn.Module | None = None,
    dual: AnyDual | None = None,
    device: Device = "auto",
    seed: int = 0,
    files: TrainingFiles | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a network with the dual regression loss, from the weights that it has.

    Args:
        model: any SR network; it is not changed.
        loader: batches `(lr, hr)` or dicts, as for `drc.search`, or a function from a step to the
            batches from there on.
        settings: of the training.
        validate: held-out images, as `drc.evaluate` takes them, on whose PSNR the best weights are
            chosen; or a function that gives a network a value, higher being better. Never a test
            set. None returns the average of the last weights.
        teacher: a network to learn from, with a weight in `settings.distill`.
        dual: the dual model, which is trained along, in place; None makes a new one.
        device, seed, files, progress: as for `drc.finetune`.

    Returns:
        A new network in eval mode, on the device of `model`.

    Raises:
        TrainingError: the loss became NaN; the last checkpoint is kept.
        RunError, DataError, UsageError, ModelError: files, batches, settings or the network cannot
            be used.
    """
    model, settings = plain_network(model), settings or TrainSettings()
    if teacher is not None:
        require_weight(settings)
    return run_training(
        model, loader, settings, teacher=teacher, dual=dual or new_dual(model, settings, seed),
        validate=_measure(validate, device), device=device, seed=seed,
        files=files or TrainingFiles(), progress=progress, title="train",
    )  # fmt: skip


def adapt(
    model: nn.Module,
    loader: LoaderSource,
    unpaired: LoaderSource,
    settings: AdaptSettings | None = None,
    *,
    validate: Validation | None = None,
    dual: AnyDual | None = None,
    device: Device = "auto",
    seed: int = 0,
    files: TrainingFiles | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Adapt a network to LR images that have no HR images.

    Every step takes n pairs and m LR images without HR, and lowers
    `1[paired] * L1(P(x), y) + dual_weight * L1(D(P(x)), x)`: the primal loss counts for the pairs
    alone, the dual loss for all. The dual model learns from the same SR images (Guo et al., CVPR
    2020, algorithm 1).

    Args:
        model: a trained SR network; it is not changed.
        loader: batches with HR, as for `train`.
        unpaired: batches of LR images of the new kind: tensors `(m, C, h, w)` or dicts with `lr`,
            of the size of the LR images of `loader`; or a function from a step to the batches
            from there on.
        settings, validate, dual, device, seed, files, progress: as for `train`.

    Returns:
        A new network in eval mode, on the device of `model`.

    Raises:
        TrainingError: the loss became NaN; the last checkpoint is kept.
        RunError, DataError, UsageError, ModelError: files, batches, settings or the network cannot
            be used.
    """
    model, settings = plain_network(model), settings or AdaptSettings()
    if not settings.dual_weight:
        raise UsageError("dual_weight is 0, and the dual loss is all that unpaired images have")
    if settings.features or settings.distill:
        raise UsageError("an adaptation has no teacher; leave distill and features at 0")
    return run_training(
        model, loader, settings, dual=dual or new_dual(model, settings, seed), unpaired=unpaired,
        validate=_measure(validate, device), device=device, seed=seed,
        files=files or TrainingFiles(), progress=progress, title="adapt",
    )  # fmt: skip


def _driver(model: nn.Module, loader: Loader, settings: RunSettings, **more: Any) -> Compression:
    return Compression(plain_network(model), loader, settings, **more)


def _run_settings(
    ratio: float | Sequence[float] | None, search: SearchSettings | None, device: Device,
    **more: Any,
) -> RunSettings:  # fmt: skip
    """The settings of a run, with a ratio beside those of its search. Raises UsageError."""
    chosen = search or SearchSettings()
    if ratio is not None:
        if "ratio" in chosen.model_fields_set and chosen.ratio != ratio:
            raise UsageError(
                f"ratio is {ratio}, and {chosen.ratio} in the settings of the search; give it once"
            )
        values = {**chosen.model_dump(exclude={"front"}), "ratio": ratio}
        chosen = validated(SearchSettings, values)
    return validated(RunSettings, {"search": chosen, "device": str(device), **more})


def _teacher(
    model: nn.Module, teacher: nn.Module | None, settings: RecoverySettings
) -> nn.Module | None:
    """What the caller gives to learn from, else what the settings name, else None."""
    traits = get_traits(model)
    if teacher is None and settings.teacher and (settings.distill or settings.features):
        teacher = open_teacher(settings.teacher, traits.scale)
    if teacher is not None:
        teacher_factor(traits, teacher)
    return teacher


def _measure(images: Validation | None, device: Device) -> Measure | None:
    """PSNR on held-out images as a function of a network."""
    if images is None or callable(images):
        return images
    return lambda network: evaluate(network, images, device=device).psnr

"""Training and adaptation from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from drc.core.errors import UsageError
from drc.core.randomness import isolated
from drc.core.runtime import Progress
from drc.data.folders import ImagePair
from drc.evaluation.benchmark import evaluate
from drc.networks.dual import AnyDual, DualModel
from drc.networks.registry import get_preset
from drc.networks.traits import get_traits, plain_network
from drc.pipeline import validated
from drc.settings.training import AdaptSettings, RecoverySettings, TrainSettings
from drc.training import loop
from drc.training.feed import LoaderSource
from drc.training.run import Measure

Chosen = TypeVar("Chosen", TrainSettings, AdaptSettings)
Validation = str | Path | list[ImagePair] | Measure


def train(
    model: nn.Module,
    loader: LoaderSource,
    *,
    validate: Validation | None = None,
    teacher: nn.Module | None = None,
    dual: AnyDual | None = None,
    settings: TrainSettings | None = None,
    steps: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    metrics: Path | str | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a network with the dual regression loss, from the weights that it has.

    Args:
        model: any SR network; it is not changed.
        loader: batches `(lr, hr)` or dicts, as for `drc.search`, or a function from a step to the
            batches from there on.
        validate: held-out images, as `drc.evaluate` takes them, on whose PSNR the best weights are
            chosen; or a function that gives a network a value, higher being better. Never a test
            set. None returns the average of the last weights.
        teacher: a network to learn from, with a weight in `settings.distill`.
        dual: the dual model, which is trained along, in place; None makes a new one.
        settings: all settings of the training.
        steps: optimizer steps, in place of `settings.steps`.
        device, seed, checkpoint, resume, metrics, progress: as for `drc.finetune`.

    Returns:
        A new network in eval mode, on the device of `model`.

    Raises:
        TrainingError: the loss became NaN; the last checkpoint is kept.
        RunError, DataError, UsageError, ModelError: files, batches, settings or the network cannot
            be used.
    """
    model, settings = plain_network(model), _with_steps(settings or TrainSettings(), steps)
    if teacher is not None:
        require_weight(settings)
    return loop.run_training(
        model, loader, settings, teacher=teacher, dual=dual or new_dual(model, settings, seed),
        validate=measure(validate, device), device=device, seed=seed,
        files=loop.TrainingFiles(checkpoint, metrics, resume), progress=progress, title="train",
    )  # fmt: skip


def adapt(
    model: nn.Module,
    loader: LoaderSource,
    unpaired: LoaderSource,
    *,
    validate: Validation | None = None,
    dual: AnyDual | None = None,
    settings: AdaptSettings | None = None,
    steps: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    metrics: Path | str | None = None,
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
        validate, dual, settings, steps, device, seed, checkpoint, resume, metrics, progress: as
            for `train`.

    Returns:
        A new network in eval mode, on the device of `model`.

    Raises:
        TrainingError: the loss became NaN; the last checkpoint is kept.
        RunError, DataError, UsageError, ModelError: files, batches, settings or the network cannot
            be used.
    """
    model, settings = plain_network(model), _with_steps(settings or AdaptSettings(), steps)
    if not settings.dual_weight:
        raise UsageError("dual_weight is 0, and the dual loss is all that unpaired images have")
    if settings.features or settings.distill:
        raise UsageError("an adaptation has no teacher; leave distill and features at 0")
    return loop.run_training(
        model, loader, settings, dual=dual or new_dual(model, settings, seed), unpaired=unpaired,
        validate=measure(validate, device), device=device, seed=seed,
        files=loop.TrainingFiles(checkpoint, metrics, resume), progress=progress, title="adapt",
    )  # fmt: skip


def require_weight(settings: RecoverySettings) -> None:
    """Raise UsageError if a teacher would have no say."""
    if not (settings.distill or settings.features):
        raise UsageError(
            "a teacher has no say while distill and features are 0; set one of them, such as "
            "train.distill 1 in a settings file"
        )


def new_dual(model: nn.Module, settings: RecoverySettings, seed: int) -> AnyDual | None:
    """An untrained dual model of the kind that the papers train with this network."""
    if not settings.dual_weight:
        return None
    traits = get_traits(model)
    with isolated(seed):
        if traits.preset is not None:
            return get_preset(traits.preset).dual(traits.scale)
        return DualModel(traits.scale, channels=traits.channels)


def measure(images: Validation | None, device: str | torch.device) -> Measure | None:
    """PSNR on held-out images as a function of a network."""
    if images is None or callable(images):
        return images
    return lambda network: evaluate(network, images, device=device).psnr


def _with_steps(settings: Chosen, steps: int | None) -> Chosen:
    if steps is None:
        return settings
    return validated(type(settings), {**settings.model_dump(), "steps": steps})


__all__ = ["Validation", "adapt", "measure", "new_dual", "require_weight", "train"]

"""The settings of everything that trains: recovery, training and adaptation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from drc.settings.base import (
    SMALLEST_PATCH,
    Positive,
    Rate,
    Ratio,
    Settings,
    Weight,
    Whole,
    absolute,
    absolute_code,
    is_file,
)

Patch = Annotated[int, Field(ge=SMALLEST_PATCH)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class RecoverySettings(Settings):
    """How a network is trained, here to recover its quality. Weights of 0 switch a loss off.

    Attributes:
        steps: optimizer steps.
        batch: crops per step, over all processes.
        patch: LR side of a crop, in pixels.
        lr: peak learning rate of Adam.
        schedule: how it falls after the warm-up: `cosine`, or in steps at the milestones.
        milestones: of the schedule `step`, as fractions of the run.
        gamma: factor at every milestone.
        floor: last learning rate of `cosine`, as a fraction of the peak.
        beta2: Adam's decay of squared gradients.
        warmup: steps until the learning rate peaks.
        primal: weight of the loss to the HR image.
        distill: weight of the loss to the teacher's output.
        features: weight of the loss to the outputs of the teacher's layers.
        teacher: a registered network, or a checkpoint file, to learn from in place of the dense
            network; code of the user's as for `RunSettings.model`.
        dual_weight: weight of the dual loss, lambda.
        train_dual: train the dual model along, on its own loss.
        kernel_weight: weight of the loss of the estimated blur kernel; without effect for networks
            that estimate none.
        ema: decay of the averaged weights that are returned; 0 = off.
        amp: autocast type.
        clip: largest gradient norm; 0 = off.
        compile: run the network through `torch.compile`.
        auto_batch: where memory does not hold a batch, send it through in as few equal parts as
            fit and add up their gradients.
        validate_every: steps between measurements on held-out images, where there are some; the
            best weights by them are returned. 0 = off.
        checkpoint_every: steps between checkpoints.
        log_every: steps between lines of metrics.jsonl.
        log_with: a tracker that gets those lines too.
        channels_last: memory format of the training.
    """

    steps: Positive = 300
    batch: Positive = 8
    patch: Patch = 32
    lr: Rate = 2e-4
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[Ratio, ...] = (0.5, 0.8, 0.9, 0.95)
    gamma: Ratio = 0.5
    floor: Annotated[float, Field(ge=0, le=1)] = 1e-3
    beta2: Ratio = 0.999
    warmup: Whole = 20
    primal: Weight = 1.0
    distill: Weight = 1.0
    features: Weight = 0.0
    teacher: str | None = None
    dual_weight: Weight = 0.1
    train_dual: bool = False
    kernel_weight: Weight = 1.0
    ema: Decay = 0.999
    amp: Literal["no", "bf16", "fp16"] = "no"
    clip: Weight = 0.0
    compile: bool = False
    auto_batch: bool = False
    validate_every: Whole = 0
    checkpoint_every: Positive = 100
    log_every: Positive = 10
    log_with: Literal["tensorboard"] | None = None
    channels_last: bool = True

    @field_validator("teacher")
    @classmethod
    def _resolve_teacher(cls, value: str | None) -> str | None:
        if value is None or ":" in value or not is_file(value):
            return absolute_code(value)
        return absolute(value, keep=(), default="")


class TrainSettings(RecoverySettings):
    """How a network is trained from initial weights, or on from given ones.

    The dual model is trained along, and there is no teacher unless one is named.
    """

    steps: Positive = 10000
    batch: Positive = 16
    patch: Patch = 48
    warmup: Whole = 200
    distill: Weight = 0.0
    train_dual: bool = True
    validate_every: Whole = 500
    checkpoint_every: Positive = 500
    log_every: Positive = 50


class AdaptSettings(TrainSettings):
    """How a network is adapted to LR images that have no HR images (Guo et al., CVPR 2020).

    Attributes:
        unpaired: LR crops without HR per step, m; `batch` counts those with HR, n.
    """

    steps: Positive = 500
    batch: Positive = 8
    patch: Patch = 32
    lr: Rate = 1e-4
    warmup: Whole = 20
    unpaired: Positive = 8
    validate_every: Whole = 0
    checkpoint_every: Positive = 100
    log_every: Positive = 10


__all__ = ["AdaptSettings", "RecoverySettings", "TrainSettings"]

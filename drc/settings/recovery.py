"""How networks are trained: recovery, training and adaptation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from drc.settings.base import (
    FREE,
    Patch,
    Positive,
    Rate,
    Ratio,
    Settings,
    Source,
    Weight,
    Whole,
    setting,
)

_TRAINING = ("train", "adapt")
_HERE = ("compress", "finetune", *_TRAINING)

Decay = Annotated[float, Field(ge=0, lt=1)]


class RecoverySettings(Settings):
    """How a network is trained, here to recover its quality. Weights of 0 switch a loss off."""

    steps: Positive = setting(300, "optimizer steps", on=("demo", *_HERE))
    batch: Positive = setting(8, "crops (with HR) per step, over all processes", on=_HERE)
    patch: Patch = setting(32, "LR side of a crop, in pixels", on=("search", *_HERE))
    lr: Rate = setting(2e-4, "peak learning rate of Adam", on=_HERE)
    schedule: Literal["cosine", "step"] = setting(
        "cosine", "how it falls after the warm-up: half a cosine, or in steps at the milestones"
    )
    milestones: tuple[Ratio, ...] = setting(
        (0.5, 0.8, 0.9, 0.95), "of the schedule `step`, as fractions of the run"
    )
    gamma: Ratio = setting(0.5, "factor at every milestone")
    floor: Annotated[float, Field(ge=0, le=1)] = setting(
        1e-3, "last learning rate of `cosine`, as a fraction of the peak"
    )
    beta2: Ratio = setting(0.999, "Adam's decay of squared gradients")
    warmup: Whole = setting(20, "steps until the learning rate peaks, a fifth of the run at most")
    primal: Weight = setting(1.0, "weight of the loss to the HR image")
    distill: Weight = setting(1.0, "weight of the loss to the teacher's images")
    features: Weight = setting(
        0.0,
        "weight of the loss to the outputs of the teacher's layers; the teacher must be the dense "
        "network or one just like it",
    )
    teacher: Source = setting(
        None,
        "what to learn from: a registered network, a checkpoint file, or your own code",
        none="the dense network, in a training none",
        on=("compress", "finetune", "train"),
    )
    dual_weight: Weight = setting(0.1, "weight of the dual loss, lambda", on=_TRAINING)
    train_dual: bool = setting(False, "train the dual model along, on its own loss")
    kernel_weight: Weight = setting(
        1.0,
        "weight of the loss of the estimated blur kernel; without effect for networks that "
        "estimate none",
    )
    ema: Decay = setting(0.999, "decay of the averaged weights that are returned; 0 = off")
    amp: Literal["no", "bf16", "fp16"] = setting("no", "autocast", on=_HERE)
    clip: Weight = setting(0.0, "largest gradient norm; 0 = off")
    compile: bool = setting(False, "run the network through torch.compile", on=_TRAINING)
    auto_batch: bool = setting(
        False,
        "send a batch that memory does not hold through in parts, and add up the gradients",
        on=_HERE,
        change=FREE,
    )
    validate_every: Whole = setting(
        0,
        "steps between measurements on held-out images, where there are some; the best weights "
        "by them are returned; 0 = off",
        on=("train",),
    )
    checkpoint_every: Positive = setting(100, "steps between checkpoints", on=_HERE, change=FREE)
    log_every: Positive = setting(10, "steps between lines of metrics.jsonl", change=FREE)
    log_with: Literal["tensorboard"] | None = setting(
        None, "a tracker that gets the metrics too", none="none", on=_TRAINING, change=FREE
    )
    channels_last: bool = setting(True, "memory format of the training")


class TrainSettings(RecoverySettings):
    """How a network is trained from initial weights, or on from given ones."""

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
    """How a network is adapted to LR images that have no HR images (Guo et al., CVPR 2020)."""

    steps: Positive = 500
    batch: Positive = 8
    patch: Patch = 32
    lr: Rate = 1e-4
    warmup: Whole = 20
    unpaired: Positive = setting(
        8,
        "LR crops without HR per step, beside those of `batch`",
        flag="--unpaired-batch",
        on=("adapt",),
    )
    validate_every: Whole = 0
    checkpoint_every: Positive = 100
    log_every: Positive = 10

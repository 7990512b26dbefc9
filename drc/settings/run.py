"""Everything one run depends on; `config.yaml` of its folder holds it."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from drc.settings.base import (
    FIXED,
    FREE,
    Positive,
    Settings,
    Whole,
    absolute,
    absolute_code,
    setting,
)
from drc.settings.data import AdaptDataSettings, DataSettings, TrainDataSettings
from drc.settings.prune import PruneSettings
from drc.settings.recovery import AdaptSettings, RecoverySettings, TrainSettings
from drc.settings.report import ReportSettings
from drc.settings.search import SearchSettings

WHICH_NETWORK = (
    "which network? pass --model NAME (`drc models` lists the names), "
    "--model package.module:factory, or --weights FILE"
)

_NEW = ("compress", "search", "train", "adapt")
_GO_ON = ("demo", *_NEW, "prune", "finetune")


class NetworkRun(Settings):
    """What runs of every kind have: a network, a device, a seed and a folder."""

    model: str | None = setting(
        None,
        "registered network (see `drc models`), or your own code: package.module:factory or "
        "file.py:factory",
        none="what the weights are of", flag="--model", on=_NEW, change=FIXED,
    )  # fmt: skip
    weights: str | None = setting(
        None, "checkpoint file, `default` for published weights, `none` for initial ones",
        none="published ones, or those that your own code gives",
        flag="--weights", on=_NEW, change=FIXED,
    )  # fmt: skip
    dual: str | None = setting(
        None, "file with a trained dual model",
        none="that of the weights, or a new one", flag="--dual", on=_NEW, change=FIXED,
    )  # fmt: skip
    scale: Positive | None = setting(
        None, "upscaling factor, HR side over LR side",
        none="the network's", flag="--scale", on=_NEW, change=FIXED,
    )  # fmt: skip
    device: str = setting(
        "auto",
        "where to compute: auto, cpu or cuda:N",
        flag="--device",
        on=(*_GO_ON, "report"),
        change=FREE,
    )
    seed: Whole = setting(0, "seed of every random choice", flag="--seed", on=_GO_ON)
    output: str | None = setting(
        None, "new run folder",
        none="under runs/", flag="--output", on=("demo", *_NEW), change=FREE,
    )  # fmt: skip

    @field_validator("model")
    @classmethod
    def _resolve_model(cls, value: str | None) -> str | None:
        return absolute_code(value)

    @field_validator("weights", "dual")
    @classmethod
    def _resolve(cls, value: str | None) -> str | None:
        return absolute(value, keep=("none",), default="default")


class RunSettings(NetworkRun):
    """Everything one compression depends on."""

    rounds: Literal[1, 2] | None = setting(
        None, "2 compresses part of the way, recovers, and goes on",
        none="1", flag="--rounds", on=("compress",), change=FIXED,
    )  # fmt: skip
    data: DataSettings = DataSettings()
    search: SearchSettings = SearchSettings()
    prune: PruneSettings = PruneSettings()
    recovery: RecoverySettings = RecoverySettings()
    report: ReportSettings = ReportSettings()


class TrainRun(NetworkRun):
    """Everything one training depends on."""

    weights: str | None = "none"
    recipe: str | None = setting(
        None, "settings of a paper, below all others: `paper` for the network's own",
        flag="--recipe", on=("train",),
    )  # fmt: skip
    data: TrainDataSettings = TrainDataSettings()
    train: TrainSettings = TrainSettings()


class AdaptRun(TrainRun):
    """Everything one adaptation depends on."""

    weights: str | None = None
    recipe: None = None
    data: AdaptDataSettings = AdaptDataSettings()
    train: AdaptSettings = AdaptSettings()

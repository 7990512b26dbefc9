"""Everything one run depends on; `config.yaml` of its folder holds it."""

from __future__ import annotations

from functools import partial

from drc.settings.base import FIXED, FREE, Code, File, Positive, Settings, Whole, setting
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
_of_network = partial(setting, None, on=_NEW, change=FIXED)


class NetworkRun(Settings):
    """What runs of every kind have: a network, a device, a seed and a folder."""

    model: Code = _of_network(
        "registered network (see `drc models`), or your own code: package.module:factory or "
        "file.py:factory",
        none="what the weights are of",
    )
    weights: File = _of_network(
        "checkpoint file, `default` for published weights, `none` for initial ones",
        none="published ones, or those that your own code gives",
    )
    dual: File = _of_network(
        "file with a trained dual model", none="that of the weights, or a new one"
    )
    scale: Positive | None = _of_network(
        "upscaling factor, HR side over LR side", none="the network's"
    )
    device: str = setting(
        "auto", "where to compute: auto, cpu or cuda:N", on=(*_GO_ON, "report"), change=FREE
    )
    seed: Whole = setting(0, "seed of every random choice", on=_GO_ON)
    output: str | None = setting(
        None, "new run folder", none="under runs/", on=("demo", *_NEW), change=FREE
    )


class RunSettings(NetworkRun):
    """Everything one compression depends on."""

    data: DataSettings = DataSettings()
    search: SearchSettings = SearchSettings()
    prune: PruneSettings = PruneSettings()
    recovery: RecoverySettings = RecoverySettings()
    report: ReportSettings = ReportSettings()


class TrainRun(NetworkRun):
    """Everything one training depends on."""

    weights: File = "none"
    recipe: str | None = setting(
        None, "settings of a paper, below all others: `paper` for the network's own", on=("train",)
    )
    data: TrainDataSettings = TrainDataSettings()
    train: TrainSettings = TrainSettings()


class AdaptRun(TrainRun):
    """Everything one adaptation depends on."""

    weights: File = None
    recipe: None = None
    data: AdaptDataSettings = AdaptDataSettings()
    train: AdaptSettings = AdaptSettings()

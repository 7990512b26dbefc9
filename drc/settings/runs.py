"""The settings of every step, validated; `settings.reader` reads them from files and options."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

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
)
from drc.settings.training import AdaptSettings, RecoverySettings, TrainSettings

TILE_OVERLAP = 16
"""LR pixels that are dropped at the cut edges of tiles, where nothing else is said."""

WHICH_NETWORK = (
    "which network? pass --model NAME (`drc models` lists the names), "
    "--model package.module:factory, or --weights FILE"
)


class ImageSettings(Settings):
    """Where training images come from.

    Attributes:
        data: folder of training images; None for the bundled photos.
        workers: loader processes.
        degradation: how LR crops are made: `bicubic` takes LR files where there are some; `iso`
            and `aniso` blur HR by random kernels, for blind SR; `nearest` and `blur` are as
            `drc.data.degrade` has them.
        cache_gb: decoded images to keep in memory, in GiB, for all workers together.
        noise: of the degraded LR crops, standard deviation in 8-bit levels.
    """

    data: str | None = None
    workers: Whole = 0
    cache_gb: Weight = 4.0
    degradation: Literal["bicubic", "iso", "aniso", "nearest", "blur"] = "bicubic"
    noise: Annotated[float, Field(ge=0, le=255)] = 0.0

    @field_validator("data", "test_data", "val_data", check_fields=False)
    @classmethod
    def _resolve(cls, value: str | None) -> str | None:
        return absolute(value, keep=("none",), default="bundled")

    @property
    def cache_bytes(self) -> int:
        return int(self.cache_gb * 2**30)

    @field_validator("noise")
    @classmethod
    def _noise_goes_with_blur(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("degradation") == "bicubic":
            raise ValueError("needs a data.degradation other than bicubic")
        return value


class DataSettings(ImageSettings):
    """Images for calibration and recovery, and those to measure on.

    Attributes:
        test_data: folder to measure on; None for the bundled test photos, "none" to skip it.
    """

    test_data: str | None = None


class TrainDataSettings(ImageSettings):
    """Images to train on, and those to choose the best weights by.

    Attributes:
        val_data: folder of held-out images; None to hold out images of `data`, "none" to measure
            nothing while training.
        val_images: how many: the last by name, of `data` at most a fifth.
    """

    val_data: str | None = None
    val_images: Positive = 10


class SearchSettings(Settings):
    """How widths are found.

    Attributes:
        strategy: name of a search strategy.
        sensitivity: of `allocate`, the criterion whose scores say what a width loses.
        budget: what `ratio` counts; `latency` is measured, on the device of the search.
        ratio: fraction removed, between 0 and 1. A list of several makes the front, and its first
            is the ratio of the run.
        front: the ratios that one search solves, in the order given; empty for `ratio` alone.
        round_to: widths are multiples of this; `auto` asks the device which ones it likes.
        min_width: no group gets narrower than this.
        lr_size: height and width of the LR image for the budgets `macs` and `latency`.
        patches: calibration crops.
        patch: LR side of a crop, in pixels.
        dual_weight: lambda of the dual regression loss.
        dual_steps: steps to refine the dual model that is fitted when none is given.
        darts_steps: of `dual_darts`, pairs of updates of widths and weights.
        darts_order: of its gradient: 2 looks ahead over one update of the weights, 1 does not.
        darts_lr: of its weights (SGD).
        darts_arch_lr: of its width logits (Adam).
        darts_batch: its crops per step, from each half of the calibration data.
    """

    strategy: str = "allocate"
    sensitivity: str = "dual_obs"
    budget: Literal["params", "macs", "latency"] = "params"
    ratio: Ratio = 0.3
    front: tuple[Ratio, ...] = ()
    round_to: Positive | Literal["auto"] = 8
    min_width: Positive = 4
    lr_size: tuple[Positive, Positive] = (96, 96)
    patches: Positive = 64
    patch: Annotated[int, Field(ge=SMALLEST_PATCH)] = 32
    dual_weight: Weight = 0.1
    dual_steps: Whole = 50
    darts_steps: Positive = 2500
    darts_order: Literal[1, 2] = 2
    darts_lr: Rate = 1e-4
    darts_arch_lr: Rate = 3e-4
    darts_batch: Positive = 16

    @model_validator(mode="before")
    @classmethod
    def _split_ratios(cls, values: Any) -> Any:
        ratios = values.get("ratio") if isinstance(values, dict) else None
        if not isinstance(ratios, (list, tuple)) or not ratios:
            return values
        once = tuple(r for place, r in enumerate(ratios) if r not in ratios[:place])
        return {**values, "ratio": once[0], "front": once if len(once) > 1 else ()}

    @field_validator("round_to", mode="before")
    @classmethod
    def _whole_or_auto(cls, value: Any) -> Any:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError("should be a whole number of at least 1, or auto")
        return value

    @property
    def ratios(self) -> tuple[float, ...]:
        """All that one search solves."""
        return self.front or (self.ratio,)


class PruneSettings(Settings):
    """How channels are ranked and removed.

    Attributes:
        importance: name of a criterion.
        reconstruct: refit the layers that read removed channels, in closed form.
        greedy_steps: of `dual_greedy`, SGD steps on the layer after each channel.
        greedy_lr: of these steps, each of which moves a weight by this fraction of its norm.
        greedy_batch: its crops per pass.
    """

    importance: str = "dual_obs"
    reconstruct: bool = True
    greedy_steps: Whole = 2
    greedy_lr: Rate = 1e-2
    greedy_batch: Positive = 16


class ReportSettings(Settings):
    """How the networks are measured.

    Attributes:
        lr_size: height and width of the LR image for MACs and latency.
        runs: latency runs per network; 0 = no latency.
        self_ensemble: average the eight flips and turns of every test image.
        tile: largest LR side of a test image that goes through at once; 0 = whole images.
        overlap: LR pixels of a tile that are dropped at every cut edge.
    """

    lr_size: tuple[Positive, Positive] = (96, 96)
    runs: Whole = 5
    self_ensemble: bool = False
    tile: Whole = 0
    overlap: Whole = TILE_OVERLAP


class RunSettings(Settings):
    """Everything one run depends on; `config.yaml` of a run folder holds it.

    Attributes:
        model: a registered network, or the user's code as `package.module:factory`; None for the
            network that the weights are of.
        scale: HR side over LR side; None for that of the network.
        weights: a file, "none" for initial weights, None for the published ones or for those
            that the user's code gives.
        dual: a file with a trained dual model; None to use a published one or fit one.
        device: auto, cpu or cuda:N.
        seed: of every random choice.
        output: the run folder; None for a new one under `runs/`.
    """

    model: str | None = None
    scale: Positive | None = None
    weights: str | None = None
    dual: str | None = None
    device: str = "auto"
    seed: Whole = 0
    output: str | None = None
    data: DataSettings = DataSettings()
    search: SearchSettings = SearchSettings()
    prune: PruneSettings = PruneSettings()
    recovery: RecoverySettings = RecoverySettings()
    report: ReportSettings = ReportSettings()

    @field_validator("model")
    @classmethod
    def _resolve_model(cls, value: str | None) -> str | None:
        return absolute_code(value)

    @field_validator("weights")
    @classmethod
    def _resolve(cls, value: str | None) -> str | None:
        return absolute(value, keep=("none",), default="default")

    @field_validator("dual")
    @classmethod
    def _resolve_dual(cls, value: str | None) -> str | None:
        return absolute(value, keep=(), default="default")


class TrainRun(Settings):
    """Everything one training depends on; `config.yaml` of its run folder holds it.

    Attributes:
        model, scale, dual, device, seed, output: as for `RunSettings`.
        weights: a file to go on from, "none" for initial weights, "default" for published ones.
        recipe: the paper's settings that the others were laid over; None for none.
    """

    model: str | None = None
    scale: Positive | None = None
    weights: str | None = "none"
    dual: str | None = None
    recipe: str | None = None
    device: str = "auto"
    seed: Whole = 0
    output: str | None = None
    data: TrainDataSettings = TrainDataSettings()
    train: TrainSettings = TrainSettings()

    @field_validator("model")
    @classmethod
    def _resolve_model(cls, value: str | None) -> str | None:
        return absolute_code(value)

    @field_validator("weights", "dual")
    @classmethod
    def _resolve(cls, value: str | None) -> str | None:
        return absolute(value, keep=("none",), default="default")


class AdaptDataSettings(TrainDataSettings):
    """Images with HR, and LR images without.

    Attributes:
        unpaired: folder of LR images, or a video file.
        degradation: how the LR images of pairs are made: as for training, or as the images without
            HR look, which `estimated` finds out.
        test_data: folder of such LR images with HR, to measure on; None to skip it.
    """

    unpaired: str | None = None
    degradation: Literal["estimated", "bicubic", "iso", "aniso", "nearest", "blur"] = "estimated"  # type: ignore[assignment]
    test_data: str | None = None

    @field_validator("unpaired")
    @classmethod
    def _resolve_unpaired(cls, value: str | None) -> str | None:
        return absolute(value, keep=(), default="")


class AdaptRun(TrainRun):
    """Everything one adaptation depends on."""

    weights: str | None = None
    recipe: None = None
    data: AdaptDataSettings = AdaptDataSettings()
    train: AdaptSettings = AdaptSettings()


_FREE = {"workers", "cache_gb", "checkpoint_every", "log_every", "log_with", "auto_batch"}


def deciding(settings: Settings) -> dict[str, Any]:
    """The settings that decide a result, plain values."""
    return settings.model_dump(mode="json", exclude=_FREE)

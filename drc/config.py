"""The settings of every step, validated; `drc.config_reader` reads them from files and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

SMALLEST_PATCH = 8
TILE_OVERLAP = 16
"""LR pixels that are dropped at the cut edges of tiles, where nothing else is said."""

WHICH_NETWORK = (
    "which network? pass --model NAME (`drc models` lists the names), "
    "--model package.module:factory, or --weights FILE"
)

Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of the settings classes: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(Settings):
    """Where the images come from.

    Attributes:
        data: folder for calibration and recovery; None for the bundled photos.
        test_data: folder to measure on; None for the bundled test photos, "none" to skip it.
        workers: loader processes.
        degradation: how LR crops for calibration and recovery are made: `bicubic` takes LR files
            where there are some; `iso` and `aniso` blur HR by random kernels, for blind SR.
        noise: of the blurred LR crops, standard deviation in 8-bit levels.
    """

    data: str | None = None
    test_data: str | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    degradation: Literal["bicubic", "iso", "aniso", "nearest", "blur"] = "bicubic"
    noise: Annotated[float, Field(ge=0, le=255)] = 0.0

    @field_validator("data", "test_data")
    @classmethod
    def _resolve(cls, value: str | None) -> str | None:
        return _absolute(value, keep=("none",), default="bundled")

    @field_validator("noise")
    @classmethod
    def _noise_goes_with_blur(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("degradation") == "bicubic":
            raise ValueError("needs data.degradation to be iso or aniso")
        return value


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
    round_to: Positive | Literal["auto"] = 4
    min_width: Positive = 4
    lr_size: tuple[Positive, Positive] = (96, 96)
    patches: Positive = 64
    patch: Annotated[int, Field(ge=SMALLEST_PATCH)] = 32
    dual_weight: Weight = 0.1
    dual_steps: Annotated[int, Field(ge=0)] = 50
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
    greedy_steps: Annotated[int, Field(ge=0)] = 2
    greedy_lr: Rate = 1e-2
    greedy_batch: Positive = 16


class FinetuneSettings(Settings):
    """How quality is recovered. Weights of 0 switch a loss off.

    Attributes:
        steps: optimizer steps.
        batch: crops per step.
        patch: LR side of a crop, in pixels.
        lr: peak learning rate of Adam.
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
        warmup: steps until the learning rate peaks.
        checkpoint_every: steps between checkpoints.
        log_every: steps between lines of metrics.jsonl.
        channels_last: memory format of the training.
    """

    steps: Positive = 300
    batch: Positive = 8
    patch: Annotated[int, Field(ge=SMALLEST_PATCH)] = 32
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-4
    primal: Weight = 1.0
    distill: Weight = 1.0
    features: Weight = 0.0
    teacher: str | None = None
    dual_weight: Weight = 0.1
    train_dual: bool = False
    kernel_weight: Weight = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    amp: Literal["no", "bf16", "fp16"] = "no"
    clip: Weight = 0.0
    warmup: Annotated[int, Field(ge=0)] = 20
    checkpoint_every: Positive = 100
    log_every: Positive = 10
    channels_last: bool = True

    @field_validator("teacher")
    @classmethod
    def _resolve_teacher(cls, value: str | None) -> str | None:
        if value is None or ":" in value or not is_file(value):
            return _absolute_code(value)
        return _absolute(value, keep=(), default="")


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
    runs: Annotated[int, Field(ge=0)] = 5
    self_ensemble: bool = False
    tile: Annotated[int, Field(ge=0)] = 0
    overlap: Annotated[int, Field(ge=0)] = TILE_OVERLAP


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
        rounds: 2 compresses part of the way, recovers, and goes on; None for 1 up to the ratio
            where two are the default (`drc.rounds`).
        output: the run folder; None for a new one under `runs/`.
    """

    model: str | None = None
    scale: Positive | None = None
    weights: str | None = None
    dual: str | None = None
    device: str = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    rounds: Literal[1, 2] | None = None
    output: str | None = None
    data: DataSettings = DataSettings()
    search: SearchSettings = SearchSettings()
    prune: PruneSettings = PruneSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    report: ReportSettings = ReportSettings()

    @field_validator("model")
    @classmethod
    def _resolve_model(cls, value: str | None) -> str | None:
        return _absolute_code(value)

    @field_validator("weights")
    @classmethod
    def _resolve(cls, value: str | None) -> str | None:
        return _absolute(value, keep=("none",), default="default")

    @field_validator("dual")
    @classmethod
    def _resolve_dual(cls, value: str | None) -> str | None:
        return _absolute(value, keep=(), default="default")


def _absolute(value: str | None, keep: tuple[str, ...], default: str) -> str | None:
    """Make a path absolute, because later commands may start in another folder."""
    if value is None or value == default:
        return None
    return value if value in keep else str(Path(value).expanduser().absolute())


def _absolute_code(value: str | None) -> str | None:
    """Make the path in `file.py:factory` absolute; other names stay."""
    file, colon, factory = (value or "").rpartition(":")
    if not file.endswith(".py"):
        return value
    return f"{_absolute(file, keep=(), default='')}{colon}{factory}"


def is_file(name: str) -> bool:
    """Whether `name` is meant as a checkpoint file, not as a registered network."""
    return len(Path(name).parts) > 1 or bool(Path(name).suffix)

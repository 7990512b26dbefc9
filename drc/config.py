"""The settings of every step. A YAML file sets them, the command line wins, unknown keys fail."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from drc.errors import UsageError

SMALLEST_PATCH = 8
TILE_OVERLAP = 16
"""LR pixels that are dropped at the cut edges of tiles, where nothing else is said."""

WHICH_NETWORK = (
    "which network? pass --model NAME (`drc models` lists the names), "
    "--model package.module:factory, or --weights FILE"
)

Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
    degradation: Literal["bicubic", "iso", "aniso"] = "bicubic"
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
        budget: what `ratio` counts.
        ratio: fraction removed, between 0 and 1.
        round_to: widths are multiples of this.
        min_width: no group gets narrower than this.
        patches: calibration crops.
        patch: LR side of a crop, in pixels.
        dual_weight: lambda of the dual regression loss.
        dual_steps: steps to refine the dual model that is fitted when none is given.
    """

    strategy: str = "allocate"
    budget: Literal["params", "macs"] = "params"
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.3
    round_to: Positive = 4
    min_width: Positive = 4
    patches: Positive = 64
    patch: Annotated[int, Field(ge=SMALLEST_PATCH)] = 32
    dual_weight: Weight = 0.1
    dual_steps: Annotated[int, Field(ge=0)] = 50


class PruneSettings(Settings):
    """How channels are ranked: `importance` names a criterion."""

    importance: str = "dual_taylor"


class FinetuneSettings(Settings):
    """How quality is recovered. Weights of 0 switch a loss off.

    Attributes:
        steps: optimizer steps.
        batch: crops per step.
        patch: LR side of a crop, in pixels.
        lr: peak learning rate of Adam.
        primal: weight of the loss to the HR image.
        distill: weight of the loss to the dense network's output.
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
        output: the run folder; None for a new one under `runs/`.
    """

    model: str | None = None
    scale: Positive | None = None
    weights: str | None = None
    dual: str | None = None
    device: str = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    output: str | None = None
    data: DataSettings = DataSettings()
    search: SearchSettings = SearchSettings()
    prune: PruneSettings = PruneSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    report: ReportSettings = ReportSettings()

    @field_validator("model")
    @classmethod
    def _resolve_model(cls, value: str | None) -> str | None:
        file, colon, factory = (value or "").rpartition(":")
        if not file.endswith(".py"):
            return value
        return f"{_absolute(file, keep=(), default='')}{colon}{factory}"

    @field_validator("weights")
    @classmethod
    def _resolve(cls, value: str | None) -> str | None:
        return _absolute(value, keep=("none",), default="default")

    @field_validator("dual")
    @classmethod
    def _resolve_dual(cls, value: str | None) -> str | None:
        return _absolute(value, keep=(), default="default")


def load_settings(
    path: Path | str | None,
    overrides: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
) -> RunSettings:
    """Lay a YAML file of settings over `base`, and the command line over both.

    Args:
        path: the YAML file, or None.
        overrides: nested like `RunSettings`; entries that are None are left out.
        base: the settings of a run that goes on; None for the defaults.

    Raises:
        UsageError: a missing or unreadable file, an unknown key, or a value out of its range.
    """
    file = _read_yaml(Path(path)) if path is not None else {}
    merged = _merge(_merge(base or {}, file), overrides)
    try:
        settings = RunSettings.model_validate(merged)
    except ValidationError as error:
        raise UsageError(_explain(error)) from None
    if settings.model is None and settings.weights in (None, "none"):
        raise UsageError(WHICH_NETWORK)
    return settings


def _absolute(value: str | None, keep: tuple[str, ...], default: str) -> str | None:
    """Make a path absolute, because later commands may start in another folder."""
    if value is None or value == default:
        return None
    return value if value in keep else str(Path(value).expanduser().absolute())


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"cannot read the settings file {path}: {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UsageError(f"the settings file {path} is not valid YAML{where}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"the settings file {path} must hold keys and values, such as `model:`")
    return values


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = _merge(below if isinstance(below, Mapping) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def _explain(error: ValidationError) -> str:
    """The first problem of a validation error, in one line."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {key!r}; {_nearest(key)}"
    if problem["type"] == "missing":
        return f"the setting {key!r} is missing"
    message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{key} is {problem['input']!r}, but it {message}"


def _nearest(key: str) -> str:
    known = list(_keys(RunSettings))
    last = key.rsplit(".", 1)[-1]
    # The right name in the wrong section is the likeliest mistake.
    moved = [name for name in known if name.rsplit(".", 1)[-1] == last]
    near = moved or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    section = key.rpartition(".")[0]
    names = [name for name in known if name.rpartition(".")[0] == section]
    return f"known: {', '.join(names or known)}"


def _keys(settings: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in settings.model_fields.items():
        yield prefix + name
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _keys(info.annotation, f"{prefix}{name}.")

"""The options that commands share, and where each lands in the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from drc.core.errors import UsageError

Model = Annotated[
    str | None,
    typer.Option(
        help="Registered network (see `drc models`), or your own code: package.module:factory "
        "or file.py:factory [default: what --weights is of]."
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Checkpoint file, `none` for initial weights [default: published file]."),
]
Dual = Annotated[str | None, typer.Option(help="Trained dual model [default: fit one].")]
Scale = Annotated[int | None, typer.Option(help="Upscaling factor [default: the network's].")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Images for calibration and recovery: folder or DIV2K tree [default: bundled photos]."
    ),
]
RunData = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Images for calibration and recovery: folder or DIV2K tree [default: the run's].",
    ),
]
TestData = Annotated[
    str | None,
    typer.Option(help="Images to measure on, `bundled` or `none` [default: bundled photos]."),
]
Budget = Annotated[str | None, typer.Option(help="params, macs or latency [default: params].")]
OneRatio = Annotated[
    list[float] | None,  # so that a second one is refused, not taken in place of the first
    typer.Option("--ratio", metavar="FLOAT", help="Fraction to remove [default: 0.3]."),
]

Ratios = Annotated[
    list[float] | None,
    typer.Option(
        "--ratio",
        metavar="FLOAT",
        help="Fraction to remove; several times for a plan each [default: 0.3].",
    ),
]
ChosenRatio = Annotated[
    float | None,
    typer.Option("--ratio", help="Of a search for several: the plan to use [default: the first]."),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        help="How widths are searched: allocate, dual_darts, plain, uniform or uniform_inner "
        "[default: allocate]."
    ),
]
Uniform = Annotated[
    bool,
    typer.Option(
        "--uniform",
        help="Widths that programs built on spandrel load as a plain, smaller architecture: "
        "short for --strategy plain.",
    ),
]
Reconstruct = Annotated[
    bool | None,
    typer.Option(
        "--reconstruct/--no-reconstruct",
        help="Refit the layers that read removed channels [default: yes].",
    ),
]
Importance = Annotated[
    str | None,
    typer.Option(
        help="How channels are ranked: dual_greedy, dual_obs, dual_taylor, fisher, fpgm, "
        "group_norm, l1, l2, random or taylor [default: dual_obs]."
    ),
]
RoundTo = Annotated[
    str | None,
    typer.Option(help="Widths are multiples of this; `auto` asks the device [default: 8]."),
]
MinWidth = Annotated[int | None, typer.Option(help="Narrowest width [default: 4].")]
Patches = Annotated[int | None, typer.Option(help="Calibration crops [default: 64].")]
Patch = Annotated[int | None, typer.Option(help="LR side of a crop [default: 32].")]
RecoveryPatch = Annotated[
    int | None, typer.Option("--patch", help="LR side of a crop [default: 32].")
]
Steps = Annotated[int | None, typer.Option(help="Recovery steps [default: 300].")]
Batch = Annotated[int | None, typer.Option(help="Crops per recovery step [default: 8].")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Peak rate [default: 2e-4].")]
Teacher = Annotated[
    str | None,
    typer.Option(
        help="Registered network or checkpoint file to learn from [default: the dense network]."
    ),
]
Amp = Annotated[str | None, typer.Option(help="Autocast: no, bf16 or fp16 [default: no].")]
CheckpointEvery = Annotated[
    int | None, typer.Option(help="Steps between checkpoints [default: 100].")
]
Workers = Annotated[int | None, typer.Option(help="Loader processes [default: 0].")]
SelfEnsemble = Annotated[
    bool | None,
    typer.Option(
        "--self-ensemble/--no-self-ensemble",
        help="Measure with the mean over 8 flips and turns [default: no].",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(help="Largest LR side measured at once, 0 for whole images [default: 0]."),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda:N [default: auto].")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice [default: 0].")]
Config = Annotated[
    Path | None, typer.Option(help="YAML file of settings; the command line wins over it.")
]
Output = Annotated[str | None, typer.Option(help="New run folder [default: under runs/].")]
Run = Annotated[Path | None, typer.Option(help="Run folder to go on with [default: newest].")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a recovery that is there already.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No logs and no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")]

StartWeights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="Checkpoint file to go on from, `default` for published weights, `none` for initial "
        "ones [default: none].",
    ),
]
StartDual = Annotated[
    str | None,
    typer.Option("--dual", help="Trained dual model to start from [default: that of the weights]."),
]
TrainTeacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        help="Network to learn from too, at the weight of the setting train.distill.",
    ),
]
TrainData = Annotated[
    str | None,
    typer.Option(
        "--data", help="Images to train on: folder or DIV2K tree [default: bundled photos]."
    ),
]
ValData = Annotated[
    str | None,
    typer.Option(
        help="Held-out images to choose the best weights by, or `none` [default: some of --data]."
    ),
]
ValImages = Annotated[
    int | None, typer.Option(help="How many; of --data at most a fifth [default: 10].")
]
Recipe = Annotated[
    str | None,
    typer.Option(help="Settings of a paper, below all others: `paper` for the network's own."),
]
Degradation = Annotated[
    str | None,
    typer.Option(help="LR crops: bicubic, iso, aniso, nearest or blur [default: bicubic]."),
]
TrainSteps = Annotated[int | None, typer.Option("--steps", help="Steps [default: 10000].")]
TrainBatch = Annotated[int | None, typer.Option("--batch", help="Crops per step [default: 16].")]
TrainPatch = Annotated[int | None, typer.Option("--patch", help="LR side of a crop [default: 48].")]
ValidateEvery = Annotated[
    int | None, typer.Option(help="Steps between measurements [default: 500].")
]
SaveEvery = Annotated[
    int | None,
    typer.Option("--checkpoint-every", help="Steps between checkpoints [default: 500]."),
]
DualWeight = Annotated[float | None, typer.Option(help="Lambda, 0 for plain L1 [default: 0.1].")]
Compile = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="Use torch.compile [default: no].")
]
AutoBatch = Annotated[
    bool | None,
    typer.Option(
        "--auto-batch/--no-auto-batch",
        help="Send a batch that memory does not hold through in parts [default: no].",
    ),
]
LogWith = Annotated[str | None, typer.Option(help="Tracker: tensorboard [default: none].")]

PLACES: dict[str, tuple[str, ...]] = {
    "model": ("model",),
    "weights": ("weights",),
    "dual": ("dual",),
    "scale": ("scale",),
    "device": ("device",),
    "seed": ("seed",),
    "output": ("output",),
    "data": ("data.data",),
    "test_data": ("data.test_data",),
    "workers": ("data.workers",),
    "self_ensemble": ("report.self_ensemble",),
    "tile": ("report.tile",),
    "budget": ("search.budget",),
    "ratio": ("search.ratio",),
    "strategy": ("search.strategy",),
    "round_to": ("search.round_to",),
    "min_width": ("search.min_width",),
    "patches": ("search.patches",),
    "patch": ("search.patch", "recovery.patch"),
    "recovery_patch": ("recovery.patch",),
    "importance": ("prune.importance",),
    "reconstruct": ("prune.reconstruct",),
    "steps": ("recovery.steps",),
    "batch": ("recovery.batch",),
    "lr": ("recovery.lr",),
    "amp": ("recovery.amp",),
    "teacher": ("recovery.teacher",),
    "auto_batch": ("recovery.auto_batch",),
    "checkpoint_every": ("recovery.checkpoint_every",),
}


TRAINING_PLACES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("model", "weights", "dual", "scale", "device", "seed", "output")},
    "recipe": ("recipe",),
    **{
        name: (f"data.{name}",)
        for name in ("data", "val_data", "val_images", "degradation", "workers")
    },
    **{name: (f"data.{name}",) for name in ("unpaired", "test_data")},
    **{
        name: (f"train.{name}",)
        for name in (
            "steps", "batch", "patch", "lr", "dual_weight", "teacher", "amp", "compile",
            "auto_batch", "validate_every", "checkpoint_every", "log_with",
        )
    },
    "unpaired_batch": ("train.unpaired",),
}  # fmt: skip
"""Where the options of `drc train` and `drc adapt` land."""


def lr_size(text: str) -> tuple[int, int]:
    """Height and width of `HxW`. Raises UsageError."""
    height, by, width = text.lower().partition("x")
    if not (by and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"--lr-size is {text!r}; pass height and width, such as 270x480")
    return int(height), int(width)


def training_overrides(params: Mapping[str, Any]) -> dict[str, Any]:
    """Nest the options that were given as `TrainRun` nests them; the rest are left out."""
    return overrides(params, TRAINING_PLACES)


def overrides(
    params: Mapping[str, Any], places: Mapping[str, tuple[str, ...]] = PLACES
) -> dict[str, Any]:
    """Nest the options that were given as `RunSettings` nests them; the rest are left out."""
    nested: dict[str, Any] = {}
    for name, value in _spelled_out(params).items():
        if value is None or value == ():  # how a list that was not given comes
            continue
        for place in places.get(name, ()):
            section, _, key = place.rpartition(".")
            target = nested.setdefault(section, {}) if section else nested
            target[key] = value
    return nested


def _spelled_out(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with the long form of `--uniform`. Raises UsageError."""
    if not params.get("uniform"):
        return params
    if params.get("strategy") not in (None, "plain"):
        raise UsageError(
            f"--uniform is short for --strategy plain, not {params['strategy']}; pass one of them"
        )
    return {**params, "strategy": "plain"}

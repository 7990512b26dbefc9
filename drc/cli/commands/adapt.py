"""`drc adapt`: adapt a trained network to LR images that have no HR images."""

from __future__ import annotations

from typing import Annotated

import typer

from drc.cli import options as o

_Unpaired = Annotated[
    str | None,
    typer.Option(help="LR images of the new kind, without HR: a folder, or a video file."),
]
_UnpairedBatch = Annotated[
    int | None, typer.Option(help="Crops of --unpaired per step, m [default: 8].")
]
_Degradation = Annotated[
    str | None,
    typer.Option(
        help="LR images of --data: estimated, bicubic, iso, aniso, nearest or blur "
        "[default: estimated]."
    ),
]
_TestData = Annotated[
    str | None,
    typer.Option(help="LR images of the new kind with HR, to measure on [default: none]."),
]
_Steps = Annotated[int | None, typer.Option("--steps", help="Steps [default: 500].")]
_Batch = Annotated[
    int | None, typer.Option("--batch", help="Crops with HR per step, n [default: 8].")
]
_Patch = Annotated[int | None, typer.Option("--patch", help="LR side of a crop [default: 32].")]
_Rate = Annotated[float | None, typer.Option("--lr", help="Peak rate [default: 1e-4].")]


def command(
    ctx: typer.Context,
    model: o.Model = None,
    weights: o.Weights = None,
    dual: o.StartDual = None,
    scale: o.Scale = None,
    unpaired: _Unpaired = None,
    unpaired_batch: _UnpairedBatch = None,
    data: o.TrainData = None,
    degradation: _Degradation = None,
    test_data: _TestData = None,
    steps: _Steps = None,
    batch: _Batch = None,
    patch: _Patch = None,
    lr: _Rate = None,
    dual_weight: o.DualWeight = None,
    amp: o.Amp = None,
    compile: o.Compile = None,
    auto_batch: o.AutoBatch = None,
    checkpoint_every: o.CheckpointEvery = None,
    log_with: o.LogWith = None,
    workers: o.Workers = None,
    device: o.Device = None,
    seed: o.Seed = None,
    config: o.Config = None,
    output: o.Output = None,
    run: o.Run = None,
    resume: o.Resume = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Adapt a network to real LR images that have no HR ones.

    Images, or frames of videos. The primal loss learns from images with HR, the dual loss from
    both kinds.

    Example: drc adapt --model drn_s --weights drn_s.pth --unpaired phone_photos --data DIV2K
    """
    from drc.cli.launch import training_run
    from drc.settings.runs import AdaptRun

    with training_run("adapt", AdaptRun, ctx.params) as session:
        from drc.cli.adaptation import print_adaptation
        from drc.cli.training import run_training

        run_training(session)
        print_adaptation(session, as_json)

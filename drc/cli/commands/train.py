"""`drc train`: train a network with the dual regression loss."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(
    ctx: typer.Context,
    model: o.Model = None,
    weights: o.StartWeights = None,
    dual: o.StartDual = None,
    scale: o.Scale = None,
    data: o.TrainData = None,
    val_data: o.ValData = None,
    val_images: o.ValImages = None,
    degradation: o.Degradation = None,
    recipe: o.Recipe = None,
    steps: o.TrainSteps = None,
    batch: o.TrainBatch = None,
    patch: o.TrainPatch = None,
    lr: o.LearningRate = None,
    dual_weight: o.DualWeight = None,
    teacher: o.TrainTeacher = None,
    amp: o.Amp = None,
    compile: o.Compile = None,
    auto_batch: o.AutoBatch = None,
    validate_every: o.ValidateEvery = None,
    checkpoint_every: o.SaveEvery = None,
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
    """Train a network with the dual regression loss.

    From scratch, or from weights.

    Runs in one process, or in several under `torchrun --nproc-per-node N -m -- drc train`.

    Example: drc train --model drn_s --data DIV2K --recipe paper
    """
    from drc.cli.launch import training_run
    from drc.settings.runs import TrainRun

    with training_run("train", TrainRun, ctx.params) as session:
        from drc.cli.training import print_training, run_training

        run_training(session)
        print_training(session, as_json)

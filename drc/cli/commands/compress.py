"""`drc compress`: search, prune, finetune and report in a row."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(
    ctx: typer.Context,
    model: o.Model = None,
    weights: o.Weights = None,
    dual: o.Dual = None,
    scale: o.Scale = None,
    data: o.Data = None,
    test_data: o.TestData = None,
    self_ensemble: o.SelfEnsemble = None,
    tile: o.Tile = None,
    budget: o.Budget = None,
    ratio: o.OneRatio = None,
    strategy: o.Strategy = None,
    uniform: o.Uniform = False,
    importance: o.Importance = None,
    reconstruct: o.Reconstruct = None,
    round_to: o.RoundTo = None,
    min_width: o.MinWidth = None,
    patches: o.Patches = None,
    patch: o.Patch = None,
    steps: o.Steps = None,
    batch: o.Batch = None,
    lr: o.LearningRate = None,
    teacher: o.Teacher = None,
    amp: o.Amp = None,
    auto_batch: o.AutoBatch = None,
    checkpoint_every: o.CheckpointEvery = None,
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
    """Search, prune, fine-tune and report, all in one run folder.

    Example: drc compress --model drn_s --ratio 0.3
    """
    from drc.cli.launch import new_run
    from drc.cli.results import print_report

    with new_run("drc compress", ctx.params) as session:
        report = session.compression.run(resume)
    print_report(report, as_json)

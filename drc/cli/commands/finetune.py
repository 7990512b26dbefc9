"""`drc finetune`: recover the quality that pruning cost."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(
    ctx: typer.Context,
    run: o.Run = None,
    data: o.RunData = None,
    steps: o.Steps = None,
    batch: o.Batch = None,
    recovery_patch: o.RecoveryPatch = None,
    lr: o.LearningRate = None,
    teacher: o.Teacher = None,
    amp: o.Amp = None,
    auto_batch: o.AutoBatch = None,
    checkpoint_every: o.CheckpointEvery = None,
    workers: o.Workers = None,
    device: o.Device = None,
    seed: o.Seed = None,
    config: o.Config = None,
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Recover the quality, with the dense network as teacher.

    --teacher names another.

    Runs in one process, or in several under `torchrun --nproc-per-node N -m -- drc finetune`.

    Example: drc finetune --steps 1000
    """
    from drc.cli.launch import old_run
    from drc.cli.results import print_step

    with old_run("drc finetune", ctx.params, same_settings=resume) as session:
        session.compression.recover(resume, overwrite)
        result = {
            "finetuned": str(session.run.finetuned_path),
            "metrics": str(session.run.metrics_path),
            "steps": session.settings.recovery.steps,
        }
        print_step(session, "finetune", result, as_json)

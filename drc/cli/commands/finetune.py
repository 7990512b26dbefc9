"""`drc finetune`: recover the quality that pruning cost."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(ctx: typer.Context, resume: o.Resume = False, as_json: o.Json = False) -> None:
    """Recover the quality, with the dense network as teacher.

    --teacher names another.

    Runs in one process, or in several under `torchrun --nproc-per-node N -m -- drc finetune`.

    Example: drc finetune --steps 1000
    """
    from drc.cli.launch import old_run
    from drc.cli.results import print_step

    with old_run("drc finetune", ctx.params, same_settings=resume) as session:
        from drc.cli.stages import run_finetune

        if resume and session.finished("finetune"):
            session.display.log("the recovery is finished already")
        else:
            run_finetune(session, resume)
        result = {
            "finetuned": str(session.run.finetuned_path),
            "metrics": str(session.run.metrics_path),
            "steps": session.settings.recovery.steps,
        }
        print_step(session, "finetune", result, as_json)

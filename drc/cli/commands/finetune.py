"""`drc finetune`: recover the quality that pruning cost."""

from __future__ import annotations

from typing import Annotated

import typer

from drc.cli import options as o

_Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a recovery that is there already.")
]


def command(
    ctx: typer.Context,
    resume: o.Resume = False,
    overwrite: _Overwrite = False,
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

"""`drc train`: train a network with the dual regression loss."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(ctx: typer.Context, resume: o.Resume = False, as_json: o.Json = False) -> None:
    """Train a network with the dual regression loss.

    From scratch, or from weights.

    Runs in one process, or in several under `torchrun --nproc-per-node N -m -- drc train`.

    Example: drc train --model drn_s --data DIV2K --recipe paper
    """
    from drc.cli.launch import training_run
    from drc.settings import TrainRun

    with training_run("train", TrainRun, ctx.params) as session:
        from drc.cli.training import print_training, run_training

        run_training(session)
        print_training(session, as_json)

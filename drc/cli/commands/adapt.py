"""`drc adapt`: adapt a trained network to LR images that have no HR images."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(ctx: typer.Context, resume: o.Resume = False, as_json: o.Json = False) -> None:
    """Adapt a network to real LR images that have no HR ones.

    Images, or frames of videos. The primal loss learns from images with HR, the dual loss from
    both kinds.

    Example: drc adapt --model drn_s --weights drn_s.pth --unpaired phone_photos --data DIV2K
    """
    from drc.cli.launch import training_run
    from drc.settings import AdaptRun

    with training_run("adapt", AdaptRun, ctx.params) as session:
        from drc.cli.adaptation import print_adaptation
        from drc.cli.training import run_training

        run_training(session)
        print_adaptation(session, as_json)

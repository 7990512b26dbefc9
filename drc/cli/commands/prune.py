"""`drc prune`: decide which channels stay, and cut the others out."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(
    ctx: typer.Context,
    run: o.Run = None,
    ratio: o.ChosenRatio = None,
    importance: o.Importance = None,
    reconstruct: o.Reconstruct = None,
    data: o.RunData = None,
    patches: o.Patches = None,
    workers: o.Workers = None,
    device: o.Device = None,
    seed: o.Seed = None,
    config: o.Config = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Remove the least important channels, as the plan says.

    Example: drc prune
    """
    from drc.cli.launch import old_run
    from drc.cli.results import print_step

    with old_run("drc prune", ctx.params) as session:
        pruned = session.compression.prune()
        before, after = (
            sum(p.numel() for p in network.parameters()) for network in (session.network, pruned)
        )
        result = {
            "pruned": str(session.run.pruned_path),
            "params_before": before,
            "params_after": after,
        }
        print_step(session, "prune", result, as_json)

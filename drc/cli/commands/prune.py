"""`drc prune`: decide which channels stay, and cut the others out."""

from __future__ import annotations

from typing import Annotated

import typer

from drc.cli import options as o

_Ratio = Annotated[
    float | None,
    typer.Option("--ratio", help="Of a search for several: the plan to use [default: the first]."),
]


def command(ctx: typer.Context, ratio: _Ratio = None, as_json: o.Json = False) -> None:
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

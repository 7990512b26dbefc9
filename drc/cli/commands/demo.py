"""`drc demo`: the whole job on a small network and photos that are installed already."""

from __future__ import annotations

import typer

from drc.cli import options as o

FIXED = {"model": "drn_tiny", "scale": 4, "ratio": 0.3}


def command(ctx: typer.Context, resume: o.Resume = False, as_json: o.Json = False) -> None:
    """Compress a small network by 30 %, in a few minutes.

    The network and the photos are installed with drc; nothing is downloaded.
    """
    from drc.cli.launch import new_run
    from drc.cli.results import print_report

    with new_run("drc demo", {**ctx.params, **FIXED}) as session:
        report = session.compression.run(resume)
    print_report(report, as_json)

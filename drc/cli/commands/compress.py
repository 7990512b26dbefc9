"""`drc compress`: search, prune, finetune and report in a row."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(
    ctx: typer.Context,
    uniform: o.Uniform = False,
    resume: o.Resume = False,
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

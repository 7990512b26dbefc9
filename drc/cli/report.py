"""`drc report`: measure before and after."""

from __future__ import annotations

from typing import Annotated

import typer

from drc.cli import options as o
from drc.errors import UsageError

_TestData = Annotated[
    str | None,
    typer.Option(
        "--test-data",
        "--data",
        help="Images to measure on, `bundled` or `none` [default: bundled photos].",
    ),
]
_Paper = Annotated[
    bool, typer.Option("--paper", help="Compare the papers' networks with what was published.")
]
_Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="NAME=FILE",
        help="With --paper: the checkpoint of a network [default: published files].",
    ),
]


def command(
    ctx: typer.Context,
    run: o.Run = None,
    test_data: _TestData = None,
    paper: _Paper = False,
    weights: _Weights = None,
    self_ensemble: o.SelfEnsemble = None,
    tile: o.Tile = None,
    device: o.Device = None,
    config: o.Config = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Measure parameters, MACs, PSNR, SSIM and latency before and after.

    Example: drc report --test-data benchmark/Set5
    """
    if paper:
        from drc.cli.paper import print_paper_report

        print_paper_report(weights or [], {**ctx.params, "weights": None}, quiet, as_json)
        return
    if weights:
        raise UsageError("--weights is for --paper; a run knows its own weights")
    from drc.cli.launch import old_run
    from drc.cli.results import print_report

    with old_run("drc report", {**ctx.params, "weights": None}) as session:
        from drc.cli.stages import run_report

        report = run_report(session)
    print_report(report, as_json)

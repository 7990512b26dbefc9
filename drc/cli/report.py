"""`drc report`: measure before and after."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(
    ctx: typer.Context,
    run: o.Run = None,
    test_data: o.TestData = None,
    device: o.Device = None,
    config: o.Config = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Measure parameters, MACs, PSNR, SSIM and latency before and after.

    Example: drc report --test-data benchmark/Set5
    """
    from drc.cli.launch import old_run
    from drc.cli.results import print_report

    with old_run("drc report", ctx.params) as session:
        from drc.cli.stages import run_report

        report = run_report(session)
    print_report(report, as_json)

"""`drc report`: measure before and after, or compare runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from drc.cli import options as o
from drc.core.errors import UsageError

_Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUN", help="Run folder; several are compared [default: newest]."),
]
_TestData = Annotated[
    str | None,
    typer.Option(
        "--test-data",
        "--data",
        help="Images to measure on, `bundled` or `none` [default: bundled photos].",
    ),
]
_Html = Annotated[bool, typer.Option("--html", help="Write a page with charts and photos too.")]
_Photos = Annotated[
    int | None,
    typer.Option(
        min=0, max=8, help="With --html: test images on the page, 0 for none [default: 3]."
    ),
]
_Png = Annotated[bool, typer.Option("--png", help="Write the charts as PNG files too.")]
_Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown in place of text.")]
_Measure = Annotated[
    bool,
    typer.Option("--measure/--no-measure", help="Or take the figures of report.json as they are."),
]
_Output = Annotated[
    Path | None, typer.Option(help="File of the page [default: in the run; compare.html].")
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

_OF_PAGES = ("runs", "html", "photos", "png", "markdown", "output")
_OF_MEASURING = ("test_data", "self_ensemble", "tile", "config", "set")


def command(
    ctx: typer.Context,
    runs: _Runs = None,
    run: o.Run = None,
    html: _Html = False,
    photos: _Photos = None,
    png: _Png = False,
    markdown: _Markdown = False,
    measure: _Measure = True,
    output: _Output = None,
    test_data: _TestData = None,
    paper: _Paper = False,
    weights: _Weights = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Measure size, cost and quality, before and after.

    Parameters, MACs, latency, PSNR and SSIM; with several runs, the reports side by side.

    Example: drc report --test-data benchmark/Set5 --html
    """
    params = {**ctx.params, "weights": None}
    if paper:
        from drc.cli.paper import print_paper_report

        _refuse(
            params, (*_OF_PAGES, "set"), "is for the report of a run; leave it out with --paper"
        )
        print_paper_report(weights or [], params, quiet, as_json)
        return
    if weights:
        raise UsageError("--weights is for --paper; a run knows its own weights")
    folders = [*(runs or []), *([run] if run is not None else [])]
    if markdown and as_json:
        raise UsageError("--markdown and --json are two forms of one answer; pass one of them")
    if not measure:
        _refuse(params, ("test_data", "self_ensemble", "tile"), "is for measuring; leave it out")
    if not html:
        _refuse(params, ("photos", "output"), "is of the page; pass --html as well")
    if len(folders) > 1:
        from drc.cli.comparison import compare_runs

        _refuse(params, _OF_MEASURING, "is for measuring; leave it out to compare runs")
        if not html:
            _refuse(params, ("device",), "is for the photos of the page; pass --html as well")
        compare_runs(folders, params)
        return
    _report({**params, "run": folders[0] if folders else None}, markdown, as_json)


def _report(params: dict[str, Any], markdown: bool, as_json: bool) -> None:
    """Report on one run."""
    from drc.cli.launch import old_run
    from drc.cli.results import print_report

    # A page of old figures can be made where the images are not.
    checked = bool(params["measure"])
    with old_run("drc report", {**params, "output": None}, checked=checked) as session:
        from drc.cli.pages import report_on

        report = report_on(session, params)
    print_report(report, as_json, markdown)


def _refuse(params: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    for name in names:
        if params.get(name):
            option = "RUN" if name == "runs" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} {why}")

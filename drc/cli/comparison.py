"""`drc report RUN RUN ...`: compare runs by the reports that they hold."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drc.cli.display import Display, is_main_process
from drc.store.run_folder import RunFolder

if TYPE_CHECKING:
    from drc.report.compare import Comparison

PAGE = Path("compare.html")
PLOTS = Path("compare")


def compare_runs(folders: Sequence[Path], params: Mapping[str, Any]) -> None:
    """Print the comparison, and write the page and the plot asked for into the current folder.

    Args:
        folders: of the runs.
        params: the command's options.

    Raises:
        RunError: a folder holds no run or no report, or a file cannot be written.
        UsageError: resvg is missing for the plot, or there is no such device.
    """
    if not is_main_process():
        return
    from drc.report.compare import compare, comparison_markdown, print_comparison
    from drc.report.run_files import read_report, read_run

    runs = [RunFolder.open(folder) for folder in folders]
    found = compare([read_run(run, read_report(run)) for run in runs], list(map(str, folders)))
    display = Display(params["quiet"])
    try:
        if params["html"]:
            _write_page(found, runs, params, display)
        if params["png"]:
            from drc.report.html.png import save_plots

            for plot in save_plots(found.runs, PLOTS):
                display.log(f"plot: {plot}")
    finally:
        display.close()
    if params["as_json"]:
        print(found.to_json())
    elif params["markdown"]:
        print(comparison_markdown(found), end="")
    else:
        print_comparison(found, sys.stdout)


def _write_page(
    found: Comparison, runs: Sequence[RunFolder], params: Mapping[str, Any], display: Display
) -> None:
    from drc.cli.compared_photos import compared_photos
    from drc.core.files import write_text
    from drc.core.runtime import resolve_device
    from drc.report.gallery import DEFAULT_PHOTOS
    from drc.report.html.page import comparison_page

    device, path = params["device"] or "auto", params["output"] or PAGE
    resolve_device(device)  # a wrong one is an error, other than images that are gone
    count = DEFAULT_PHOTOS if params["photos"] is None else params["photos"]
    photos, problems = compared_photos(found, runs, count, device, display)
    write_text(path, comparison_page(found, photos, problems))
    display.log(f"page: {path}")

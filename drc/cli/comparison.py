"""`drc report RUN RUN ...`: compare runs by the reports that they hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from drc.artifacts.run_folder import RunFolder
from drc.cli.display import Display, is_main_process

PAGE = Path("compare.html")
PLOTS = Path("compare")


def compare_runs(
    folders: Sequence[Path],
    html: bool,
    png: bool,
    output: Path | None,
    quiet: bool,
    markdown: bool,
    as_json: bool,
) -> None:
    """Print the comparison, and write the page and the plot asked for into the current folder.

    Raises:
        RunError: a folder holds no run or no report, or a file cannot be written.
        UsageError: matplotlib is missing for the plot.
    """
    if not is_main_process():
        return
    from drc.report.compare import compare, comparison_markdown, print_comparison
    from drc.report.run_files import read_report, read_run

    runs = [RunFolder.open(folder) for folder in folders]
    found = compare([read_run(run, read_report(run)) for run in runs], list(map(str, folders)))
    display = Display(quiet)
    if html:
        from drc.artifacts.atomic import write_text
        from drc.report.html.comparison import comparison_page

        path = output or PAGE
        write_text(path, comparison_page(found))
        display.log(f"page: {path}")
    if png:
        from drc.report.plots import save_plots

        for plot in save_plots(found.runs, PLOTS):
            display.log(f"plot: {plot}")
    display.close()
    if as_json:
        print(found.to_json())
    elif markdown:
        print(comparison_markdown(found), end="")
    else:
        print_comparison(found, sys.stdout)

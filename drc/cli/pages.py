"""What `drc report` writes for people to look at: the HTML page of a run, and plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drc.cli.reproduce import recipe
from drc.cli.session import Session
from drc.core.distributed import on_first
from drc.core.errors import DrcError
from drc.core.files import write_text
from drc.report.gallery import DEFAULT_PHOTOS, Photo, choose, photograph
from drc.report.html.page import page
from drc.report.html.png import require_resvg, save_plots
from drc.report.run_files import read_report, read_run
from drc.report.schema import Report
from drc.report.text import to_markdown


def report_on(session: Session, params: Mapping[str, Any]) -> Report:
    """Measure a run, or read what was measured, and write the page and the plots asked for.

    Raises:
        UsageError: resvg is missing for plots.
        RunError: nothing is pruned or measured yet, or a file cannot be written.
        DrcError: as the networks, images and files raise it.
    """
    if params["png"]:
        require_resvg()
    measured = bool(params["measure"])
    report = (
        session.compression.report() if measured else on_first(lambda: read_report(session.run))
    )
    if not (params["html"] or params["png"]):
        return report
    return on_first(lambda: _with_pages(session, report, params, measured))


def _with_pages(
    session: Session, report: Report, params: Mapping[str, Any], measured: bool
) -> Report:
    run = session.run
    if params["png"]:
        report.files["plots"] = str(run.plots_path)
        for plot in save_plots([read_run(run, report)], run.plots_path):
            session.display.log(f"plot: {plot}")
    if params["html"]:
        path = params["output"] or run.page_path
        report.files["page"] = str(path)
        count = DEFAULT_PHOTOS if params["photos"] is None else params["photos"]
        photos, problem = _photos(session, report, count)
        again = recipe(session.settings)
        write_text(path, page(read_run(run, report), photos, again, photo_problem=problem))
        session.display.log(f"page: {path}")
    if measured:  # what was read stays as it was
        write_text(run.report_path, report.to_json() + "\n")
        write_text(run.markdown_path, to_markdown(report))
    return report


def _photos(session: Session, report: Report, count: int) -> tuple[list[Photo], str]:
    """The test images through the networks, or why there are none."""
    if not count:
        return [], ""
    if session.test_data is None:
        return [], "no photos: there are no test images (--test-data none)"
    try:
        networks = {"dense": session.network, "pruned": session.saved(session.run.pruned_path)}
        if report.recovered:
            networks["recovered"] = session.saved(session.run.finetuned_path)
        pairs = choose(session.test_pairs, report.data.images, count)
        way, device = session.inference, session.settings.device
        return photograph(
            networks, pairs, inference=way, device=device, progress=session.display
        ), ""
    except DrcError as error:  # the figures are worth a page without photos
        return [], f"no photos: {error}"

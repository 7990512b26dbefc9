"""`drc report --paper`: the papers' networks before and after, published and measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from drc.errors import UsageError


def print_paper_report(
    weights: Sequence[str], params: dict[str, Any], quiet: bool, as_json: bool
) -> None:
    """Measure the table and print it.

    Args:
        weights: `NAME=FILE` entries.
        params: the command's options.
        quiet: no logs and no progress.
        as_json: print JSON.

    Raises:
        UsageError: an entry of `weights` that is none, or an option that has no meaning here.
    """
    if params.get("run") is not None:
        raise UsageError("--run is for the report of a run; leave it out with --paper")
    files = dict(_named_file(entry) for entry in weights)
    from drc.cli.display import Display
    from drc.cli.options import overrides
    from drc.config import load_settings
    from drc.evaluation.inference import Inference
    from drc.report.paper import measure, published, to_json
    from drc.report.paper_table import print_paper

    settings = load_settings(params.get("config"), overrides(params))
    test = settings.data.test_data if params.get("test_data") is not None else None
    report = settings.report
    inference = Inference(report.self_ensemble, report.tile, report.overlap)
    display = Display(quiet)
    try:
        rows = []
        total = len(published())
        for row in measure(
            test, files, device=settings.device, inference=inference, progress=display
        ):
            rows.append(row)
            entry = row[0]
            display.log(f"{entry.model} x{entry.scale} ({len(rows)} of {total})")
    finally:
        display.close()
    if as_json:
        print(json.dumps(to_json(rows), indent=2))
        return
    print_paper(rows, sys.stdout)


def _named_file(entry: str) -> tuple[str, str]:
    name, equals, file = entry.partition("=")
    if not (name and equals and file):
        raise UsageError(
            f"--weights {entry} is not NAME=FILE, such as drn_s=DRNS4x.pt (x8: drn_s_x8=FILE)"
        )
    return name, file

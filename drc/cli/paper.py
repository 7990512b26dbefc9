"""`drc report --paper`: the papers' networks before and after, published and measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from drc.core.errors import UsageError


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
    for option in ("run", "config"):
        if params.get(option) is not None:
            raise UsageError(f"--{option} is for the report of a run; leave it out with --paper")
    files = dict(_named_file(entry) for entry in weights)
    from drc.cli.display import Display
    from drc.evaluation.inference import Inference
    from drc.report.paper import measure, print_paper, published, to_json

    inference = Inference(bool(params.get("self_ensemble")), params.get("tile") or 0)
    data, device = params.get("test_data"), params.get("device") or "auto"
    display = Display(quiet)
    try:
        rows = []
        total = len(published())
        for row in measure(data, files, device=device, inference=inference, progress=display):
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

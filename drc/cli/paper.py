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
    for entry in weights:
        if not all(entry.partition("=")):
            raise UsageError(
                f"--weights {entry} is not NAME=FILE, such as drn_s=DRNS4x.pt (x8: drn_s_x8=FILE)"
            )
    from drc.cli.display import Display
    from drc.evaluation.inference import Inference
    from drc.report.paper import measure, print_paper, published, to_json

    files = dict(entry.split("=", 1) for entry in weights)
    inference = Inference(bool(params.get("self_ensemble")), params.get("tile") or 0)
    data, device = params.get("test_data"), params.get("device") or "auto"
    display = Display(quiet)
    try:
        rows = []
        for row in measure(data, files, device=device, inference=inference, progress=display):
            rows.append(row)
            model, scale = row[0].model, row[0].scale
            display.log(f"{model} x{scale} ({len(rows)} of {len(published())})")
    finally:
        display.close()
    if as_json:
        print(json.dumps(to_json(rows), indent=2))
    else:
        print_paper(rows, sys.stdout)

"""`drc models`: list the networks known by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from drc.cli import options as o


def command(ctx: typer.Context, as_json: o.Json = False) -> None:
    """List the registered networks, their cost and weights.

    Scale, parameters, MACs, value range, and where their weights come from. MACs are for an LR
    image of 96x96, counted by fvcore.
    """
    import json

    lines = list(_lines())
    if as_json:
        print(json.dumps(lines, indent=2))
        return
    _print(lines)


def _lines() -> Iterator[dict[str, Any]]:
    from drc.networks.registry import costs, get_preset, list_models

    for name in list_models():
        preset = get_preset(name)
        for scale in sorted(preset.arguments):
            file = preset.weights.get(scale)
            cost = costs(name, scale) or {}
            yield {
                "model": name,
                "scale": scale,
                "params": cost.get("params"),
                "macs": cost.get("macs"),
                "value_range": preset.value_range,
                "weights": "none" if file is None else "shipped" if file.packaged else file.url,
            }


def _print(lines: list[dict[str, Any]]) -> None:
    import sys

    from drc.report.table import MISSING, Table, console, figure

    rows = []
    for line in lines:
        params, macs = line["params"], line["macs"]
        rows.append(
            (
                line["model"],
                f"x{line['scale']}",
                figure(params, 0),
                MISSING if macs is None else f"{macs / 1e9:.2f}",
                f"0..{line['value_range']:g}",
                line["weights"],
            )
        )
    headings = ("model", "scale", "parameters", "G MACs", "range", "weights")
    table = Table(headings, rows, align="lrrrrl").rich(bare=True)
    table.columns[0].no_wrap = True
    # Addresses must stay in one piece to be copied.
    console(sys.stdout, plain_width=200).print(table)

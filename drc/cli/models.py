"""`drc models`: list the networks known by name."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(ctx: typer.Context, as_json: o.Json = False) -> None:
    """List the registered networks, their scales and where their weights come from."""
    import json

    from drc.models.registry import get_preset, list_models

    lines = []
    for name in list_models():
        preset = get_preset(name)
        for scale in sorted(preset.arguments):
            file = preset.weights.get(scale)
            where = "none" if file is None else "shipped" if file.packaged else str(file.url)
            lines.append({"model": name, "scale": scale, "weights": where})
    if as_json:
        print(json.dumps(lines, indent=2))
        return
    width = max(len(str(line["model"])) for line in lines)
    for line in lines:
        print(f"{line['model']:<{width}}  x{line['scale']}  weights: {line['weights']}")

"""`drc inspect`: what can be removed from a network, and what stays."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from drc.cli import options as o

_Network = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Registered name or package.module:factory [default: recognised by --weights].",
    ),
]
_Weights = Annotated[str | None, typer.Option(help="Checkpoint file.")]


def command(
    ctx: typer.Context,
    model: _Network = None,
    weights: _Weights = None,
    scale: o.Scale = None,
    as_json: o.Json = False,
) -> None:
    """Show which channels of a network can go, and what stays.

    The channel groups with what each holds, and the channels that stay with the reason.

    Example: drc inspect drn_s
    """
    from drc.core.errors import UsageError

    if model is None and weights is None:
        raise UsageError(
            "which network? `drc inspect NAME` (`drc models` lists the names), "
            "`drc inspect package.module:factory`, or `drc inspect --weights FILE`"
        )
    from drc.opening import open_network
    from drc.report.inspection import inspect, print_inspection

    # Which channels there are does not depend on the weights: a name alone downloads none.
    spec = weights if weights is not None or model is None else "none"
    inspection = inspect(open_network(model, spec, scale))
    if as_json:
        print(inspection.to_json())
        return
    print_inspection(inspection, sys.stdout)

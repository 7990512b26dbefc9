"""The plans of a search for several ratios, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drc.cli.display import is_main_process

if TYPE_CHECKING:
    from drc.cli.session import Session
    from drc.selection.planning import Plans
    from drc.store.plan import Plan


def print_plans(session: Session, plans: Plans, first: dict[str, Any], as_json: bool) -> None:
    """Print what `drc search` found for every ratio, and which ratios have no plan.

    Args:
        session: of the search.
        plans: what it found.
        first: what a search for the first plan alone would print.
        as_json: print JSON: `first`, with `plans` and `missed`.
    """
    if not is_main_process():
        return
    session.display.close()  # the bars stand above the results, not below
    seconds = session.run.read_steps()["search"]["seconds"]
    head = {"run": str(session.run.path), "step": "search", "seconds": seconds, **first}
    rows = [_row(session, plan) for plan in plans.plans]
    missed = [{"ratio": ratio, "reason": why} for ratio, why in plans.missed.items()]
    if as_json:
        print(json.dumps({**head, "plans": rows, "missed": missed}, indent=2))
        return
    for name in ("run", "seconds", "plan", "groups", "unit", "before"):
        print(f"{name}: {head[name]}")
    _print_table(rows, first["unit"])
    for entry in missed:
        print(f"no plan for ratio {entry['ratio']}: {entry['reason']}")


def _row(session: Session, plan: Plan) -> dict[str, Any]:
    found = plan.budget
    return {
        "ratio": found.ratio,
        "plan": str(session.run.plan_of_ratio(found.ratio)),
        "limit": found.shown(found.limit),
        "predicted": found.shown(found.predicted),
        "removed": round(1 - found.predicted / found.before, 4),
        "channels_kept": round(plan.kept, 4),
        "expected_loss": plan.expected_loss,
    }


def _print_table(rows: list[dict[str, Any]], unit: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("ratio", unit, "removed", "channels kept", "expected loss"):
        table.add_column(heading, justify="right")
    table.add_column("plan", no_wrap=True)
    for row in rows:
        loss = row["expected_loss"]
        table.add_row(
            f"{row['ratio']:g}",
            f"{row['predicted']:,}",
            f"{row['removed']:.1%}",
            f"{row['channels_kept']:.1%}",
            "-" if loss is None else f"{loss:.4g}",
            "/".join(Path(row["plan"]).parts[-2:]),
        )
    # Without a terminal, 80 columns would wrap the paths.
    width = None if sys.stdout.isatty() else 120
    Console(file=sys.stdout, highlight=False, width=width).print(table)

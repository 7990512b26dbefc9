"""`drc search`: find how many channels each layer needs."""

from __future__ import annotations

import typer

from drc.cli import options as o


def command(
    ctx: typer.Context,
    uniform: o.Uniform = False,
    resume: o.Resume = False,
    as_json: o.Json = False,
) -> None:
    """Find how many channels each layer needs, and start a run folder.

    Example: drc search --model drn_s --ratio 0.3
    """
    from drc.cli.launch import new_run
    from drc.cli.results import print_step

    with new_run("drc search", ctx.params) as session:
        found_plans = session.compression.search(resume)
        plan = found_plans.plans[0]
        found = plan.budget
        result = {
            "plan": str(session.run.plan_path),
            "groups": len(plan.groups),
            "budget": found.kind,
            "unit": found.unit,
            "before": found.shown(found.before),
            "limit": found.shown(found.limit),
            "predicted": found.shown(found.predicted),
            "removed": round(1 - found.predicted / found.before, 4),
        }
        if not session.settings.search.front:
            print_step(session, "search", result, as_json)
            return
        from drc.cli.plans import print_plans

        print_plans(session, found_plans, result, as_json)

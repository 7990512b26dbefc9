"""Results on stdout, as text or as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from drc.cli.display import is_main_process

if TYPE_CHECKING:
    from drc.cli.session import Session
    from drc.report.schema import Report


def print_report(report: Report, as_json: bool, markdown: bool = False) -> None:
    """The whole report: the table, the JSON of `drc.report.schema`, or Markdown."""
    if not is_main_process():
        return
    from drc.report.text import print_text, to_markdown

    if as_json:
        print(report.to_json())
    elif markdown:
        print(to_markdown(report), end="")
    else:
        print_text(report, sys.stdout)


def print_step(session: Session, step: str, result: dict[str, Any], as_json: bool) -> None:
    """What one step made: its seconds, files and figures."""
    if not is_main_process():
        return
    session.display.close()  # the bars stand above the results, not below
    seconds = session.run.read_steps()[step]["seconds"]
    facts = {"run": str(session.run.path), "step": step, "seconds": seconds, **result}
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {value}")

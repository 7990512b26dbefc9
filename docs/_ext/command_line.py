"""The directive `commands`: a section per command of `drc`, with what its `--help` prints.

    ```{commands}
    ```

It asks the program itself, by way of what typer's own help asks. (sphinx-click reads click's
classes; newer versions of typer have classes of their own.)
"""

from __future__ import annotations

import re
from typing import Any

import typer
from benchmark_tables import markdown
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from drc.cli.app import COMMANDS, app
from drc.report.table import Table

DEFAULT = re.compile(r"\s*\[default: (.*?)\](\.?)$")


class Commands(SphinxDirective):
    """Sections for all commands, in the order of `drc --help`."""

    def run(self) -> list[nodes.Node]:
        root = typer.main.get_command(app)
        parent = root.make_context("drc", ["--help"], resilient_parsing=True)
        sections = []
        for name in COMMANDS:
            command = root.get_command(parent, name)
            context = command.make_context(name, [], parent=parent, resilient_parsing=True)
            title = f"drc {name}"
            section = nodes.section(ids=[nodes.make_id(title)], names=[title])
            section += nodes.title("", "", nodes.literal(title, title))
            self.state.document.note_implicit_target(section, section)
            text = StringList(describe(command, context).splitlines(), title)
            self.state.nested_parse(text, 0, section)
            sections.append(section)
        return sections


def describe(command: Any, context: Any) -> str:
    """A command as Markdown: what it does, its usage, and a row per argument and option."""
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = []
    for spelled, text in filter(None, records):
        default = DEFAULT.search(text)
        meaning = DEFAULT.sub(r"\2", text) if default else text
        rows.append([f"`{spelled}`", default[1] if default else "", meaning])
    usage = command.get_usage(context).removeprefix("Usage: ")
    table = markdown(Table(["option", "default", "meaning"], rows))
    return "\n\n".join([_as_code(command.help), f"```text\n{usage}\n```", table])


def _as_code(text: str) -> str:
    """A help text with its example set as code."""
    return re.sub(r"^Example: (drc .*)$", r"Example: `\1`", text, flags=re.MULTILINE)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("commands", Commands)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

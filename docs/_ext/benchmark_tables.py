"""The directive `benchmark`: tables of a committed result file, made when the site is built.

    ```{benchmark} rivals_drn_tiny
    ```

reads `benchmarks/results/rivals_drn_tiny.json` and puts the command that wrote it, its date and
machine, and its tables on the page. How a file becomes tables is a function of `result_tables`,
found there by the file's name. A file that is missing, a key that a table needs and does not find,
and a value of another type are warnings, which fail the build: a table never leaves out silently
what it was asked for. Keys that no table needs may come and go.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from result_tables import describe, tables_of
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from drc.report.table import Table

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


class Benchmark(SphinxDirective):
    """The tables of the result file that the argument names, without `.json`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        path = RESULTS / f"{name}.json"
        self.env.note_dependency(str(path))
        try:
            result = json.loads(path.read_text("utf-8"))
            text = "\n\n".join([describe(result), *map(markdown, tables_of(name, result))])
        except FileNotFoundError:
            return self._refuse(f"there is no {path.name} in {path.parent}")
        except KeyError as missing:
            return self._refuse(f"{path.name} has no key {missing}, which its table needs")
        except (ValueError, TypeError, AttributeError) as error:
            return self._refuse(f"{path.name} is not as its table expects: {error}")
        holder = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), str(path)), 0, holder)
        return holder.children

    def _refuse(self, why: str) -> list[nodes.Node]:
        logging.getLogger(__name__).warning("benchmark: %s", why, location=self.get_location())
        return [nodes.error("", nodes.paragraph(text=why))]


def markdown(table: Table) -> str:
    """The table as Markdown, its title above it; numbers stand on the right."""
    numeric = map(_is_number, zip(*table.rows, strict=True))
    align = "".join("r" if right else "l" for right in numeric)
    text = replace(table, align=align).markdown()
    return f"**{table.title}**\n\n{text}" if table.title else text


def _is_number(column: tuple[str, ...]) -> bool:
    """Whether what a column holds begins with digits, blanks and dashes apart."""
    filled = [cell for cell in column if cell not in ("", "-")]
    return bool(filled) and all(cell.lstrip("-+/ ")[:1].isdigit() for cell in filled)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("benchmark", Benchmark)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

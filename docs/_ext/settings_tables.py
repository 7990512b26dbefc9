"""The directive `settings`: a settings class as a table, from its fields and its docstring.

    ```{settings} drc.settings.runs.SearchSettings
    ```

Names, kinds and defaults come from the fields; what each means from the `Attributes` of the
docstrings of the class and its bases. A field that none of them tells of is a warning, which
fails the build.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from typing import Any, Literal, Union, get_args, get_origin

from benchmark_tables import markdown
from docutils import nodes
from docutils.statemachine import StringList
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from drc.report.table import Table

BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


class SettingsTable(SphinxDirective):
    """The first line of the class's docstring, then a row per field."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        self.env.note_dependency(inspect.getfile(kind))
        meanings = attributes_of(kind)
        rows = []
        for field, info in kind.model_fields.items():
            nested = isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
            if nested:
                meanings.setdefault(field, f"see {info.annotation.__name__}")
            if field not in meanings:
                logging.getLogger(__name__).warning(
                    "settings: no docstring of %s tells what %s is", name, field,
                    location=self.get_location(),
                )  # fmt: skip
            default = "" if nested else f"`{as_yaml(info.default)}`"
            allowed = "section" if nested else in_words(info.annotation, info.metadata)
            rows.append([f"`{field}`", allowed, default, meanings.get(field, "")])
        summary = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
        text = f"{summary}\n\n" + markdown(Table(["setting", "kind", "default", "meaning"], rows))
        holder = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), kind.__module__), 0, holder)
        return holder.children


def attributes_of(kind: type[BaseModel]) -> dict[str, str]:
    """Field -> its line under `Attributes:` in the docstring of a class or the nearest base."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        block = re.split(r"\n(?=\S)", section)[0]
        for entry in re.split(r"\n {4}(?=\S)", f"\n{block}")[1:]:
            names, _, meaning = entry.partition(": ")
            text = " ".join(meaning.split())
            found.update(dict.fromkeys((name.strip() for name in names.split(",")), text))
    return found


def in_words(annotation: Any, bounds: list[Any] | tuple[Any, ...] = ()) -> str:
    """The values that an annotation allows, such as "whole number, at least 1"."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        words = [in_words(part) for part in parts if part is not type(None)]
        return " or ".join([*words, *(["null"] if type(None) in parts else [])])
    if origin is Literal:
        return ", ".join(f"`{as_yaml(value)}`" for value in parts)
    if origin is tuple:
        inner = in_words(parts[0])
        return f"list of: {inner}" if parts[-1] is Ellipsis else f"{len(parts)} times: {inner}"
    if hasattr(annotation, "__metadata__"):
        return in_words(parts[0], annotation.__metadata__)
    if annotation is types.NoneType:
        return "null"
    return ", ".join([KINDS[annotation], *limits(bounds)])


def limits(bounds: list[Any] | tuple[Any, ...]) -> list[str]:
    """The bounds of a number, in words."""
    found = []
    for bound in bounds:
        if isinstance(bound, FieldInfo):
            found += limits(bound.metadata)
        found += [text.format(getattr(bound, key)) for key, text in BOUNDS.items()
                  if getattr(bound, key, None) is not None]  # fmt: skip
    return found


def as_yaml(value: Any) -> str:
    """A default as a settings file would have it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("settings", SettingsTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

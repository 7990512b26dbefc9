"""The directive `settings`: a settings class as a table, made from its fields.

    ```{settings} drc.settings.SearchSettings
    ```

Everything comes from the fields; a setting with an option names it, and the commands that take it.
"""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from benchmark_tables import markdown
from docutils import nodes
from docutils.statemachine import StringList
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from drc.cli.app import COMMANDS
from drc.cli.options import kind_of
from drc.report.table import Table
from drc.settings.base import Settings, is_section
from drc.settings.fields import Setting, fields_of

HEAD = ["setting", "kind", "default", "option", "meaning"]
BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


class SettingsTable(SphinxDirective):
    """The first line of the class's docstring, then a row per field."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        self.env.note_dependency(inspect.getfile(kind))
        summary = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
        text = f"{summary}\n\n" + markdown(Table(HEAD, list(rows_of(kind))))
        holder = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), kind.__module__), 0, holder)
        return holder.children


def rows_of(kind: type[Settings]) -> Iterator[list[str]]:
    """A row per field; of a section its class."""
    settings = {setting.place: setting for setting in fields_of(kind)}
    for name, info in kind.model_fields.items():
        if is_section(info.annotation):
            yield [f"`{name}`", "section", "", "", f"see {info.annotation.__name__}"]
            continue
        setting = settings[name]
        default = f"`{as_yaml(setting.default)}`"
        if setting.default is None and setting.none:
            default += f": {setting.none}"
        values = in_words(setting.kind, setting.bounds)
        yield [f"`{name}`", values, default, option_of(setting, kind), setting.help]


def option_of(setting: Setting, kind: type[Settings]) -> str:
    """Its option, and the commands whose runs have these settings that take it."""
    takers = [command for command in COMMANDS if command in setting.on and has(command, kind)]
    return f"`{setting.flag}` of {', '.join(takers)}" if takers else ""


def has(command: str, kind: type[Settings]) -> bool:
    run = kind_of(command)
    return run is kind or any(info.annotation is kind for info in run.model_fields.values())


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

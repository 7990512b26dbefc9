"""The commands that do a run again, from its settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, cast

import typer
from typer.core import TyperGroup

from drc.cli.launch import flat
from drc.cli.options import PLACES
from drc.core.files import dump_yaml
from drc.report.html.page import Recipe
from drc.settings.runs import RunSettings

_ALWAYS = ("model", "scale", "search.budget", "search.ratio", "seed")
_FILE = "settings.yaml"


def recipe(settings: RunSettings) -> Recipe:
    """How to repeat a run: every setting that is not the default, as options or in a file.

    One command per step; together they find what `drc compress` finds.
    """
    values = flat(settings)
    values["device"] = settings.device
    defaults = {**flat(RunSettings(model=settings.model or "-")), "model": None, "device": "auto"}
    open_ = {
        name: value
        for name, value in values.items()
        if value is not None and (name in _ALWAYS or value != defaults.get(name))
    }
    if settings.search.front:
        open_["search.ratio"] = list(settings.search.front)
        open_.pop("search.front")
    steps = ("search", "prune", "finetune", "report")
    lines = {step: ["drc", step] for step in steps}
    for step in steps:
        lines[step] += _options(step, open_, settings)
    text = dump_yaml(_nested(open_)) if open_ else ""
    if text:
        lines[steps[0]] += ["--config", _FILE]  # the later ones find it in the run
    return Recipe(text, [shlex.join(line) for line in lines.values()], settings.seed)


def _options(step: str, open_: dict[str, Any], settings: RunSettings) -> Iterator[str]:
    """The command's options for settings that are still open, which are closed by it."""
    for parameter in _parameters(step):
        places = PLACES.get(parameter.name or "", ())
        if step == "prune" and settings.search.front and "search.ratio" in places:
            yield from (parameter.opts[0], f"{settings.search.ratio:g}")
        found = [open_[place] for place in places if place in open_]
        if not places or len(found) < len(places) or any(value != found[0] for value in found):
            continue
        for place in places:
            del open_[place]
        if isinstance(found[0], bool):
            yield (parameter.opts if found[0] else parameter.secondary_opts)[0]
            continue
        for value in found[0] if isinstance(found[0], list) else [found[0]]:
            yield from (parameter.opts[0], str(value))


def _parameters(step: str) -> list[Any]:
    """The command's options as the command line knows them."""
    from drc.cli.app import app  # it imports the command that imports this

    return cast(TyperGroup, typer.main.get_command(app)).commands[step].params


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        target = nested.setdefault(section, {}) if section else nested
        target[key] = list(value) if isinstance(value, tuple) else value
    return nested


__all__ = ["recipe"]

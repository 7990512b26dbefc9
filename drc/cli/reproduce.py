"""The commands that do a run again, from its settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from drc.cli.options import options_of
from drc.core.files import dump_yaml
from drc.report.html.page import Recipe
from drc.settings.fields import leaves
from drc.settings.reader import nest
from drc.settings.run import RunSettings

_ALWAYS = ("model", "scale", "search.budget", "search.ratio", "seed")
_FILE = "settings.yaml"


def recipe(settings: RunSettings) -> Recipe:
    """How to repeat a run: every setting that is not the default, as options or in a file.

    One command per step; together they find what `drc compress` finds.
    """
    defaults = leaves(RunSettings())
    open_ = {
        name: value
        for name, value in leaves(settings).items()
        if value is not None
        and name != "output"
        and (name in _ALWAYS or value != defaults.get(name))
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
    if step == "prune" and settings.search.front:
        yield from ("--ratio", f"{settings.search.ratio:g}")
    for option in options_of(step):
        found = [open_[place] for place in option.places if place in open_]
        if len(found) < len(option.places) or any(value != found[0] for value in found):
            continue
        for place in option.places:
            del open_[place]
        yield from option.spelled(found[0])


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        nest(nested, name, list(value) if isinstance(value, tuple) else value)
    return nested

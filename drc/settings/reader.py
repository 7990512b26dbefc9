"""Reading settings: a YAML file sets them, the command line wins, unknown keys fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from drc.core.errors import UsageError
from drc.settings.base import validated
from drc.settings.recipes import settings_of
from drc.settings.run import WHICH_NETWORK, AdaptRun, RunSettings, TrainRun

Kind = TypeVar("Kind", RunSettings, TrainRun, AdaptRun)


def load_settings(
    path: Path | str | None,
    overrides: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
    kind: type[Kind] = RunSettings,  # type: ignore[assignment]
) -> Kind:
    """Lay a YAML file of settings over `base`, and the command line over both.

    Where the settings name a recipe, it comes below everything else. A value of null is the
    default again.

    Args:
        path: the YAML file, or None.
        overrides: nested like `kind`.
        base: the settings of a run that goes on; None for the defaults.
        kind: of the run.

    Raises:
        UsageError: a missing or unreadable file, an unknown key, or a value out of its range.
    """
    file = _read_yaml(Path(path)) if path is not None else {}
    merged = merge(merge(base or {}, file), overrides)
    # The stored settings of a run that goes on hold those of its recipe.
    if not base and "recipe" in kind.model_fields and merged.get("recipe") is not None:
        merged = merge(
            settings_of(merged["recipe"], merged.get("model"), merged.get("scale")), merged
        )
    settings = validated(kind, merged)
    if settings.model is None and settings.weights in (None, "none"):
        raise UsageError(WHICH_NETWORK)
    return settings


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """The settings of `search.patches=128` and the like, nested; values are read as YAML.

    Raises:
        UsageError: a text is no assignment, or its value is no YAML.
    """
    values: dict[str, Any] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        if not equals or not all(place.split(".")):
            raise UsageError(f"--set is {text!r}; pass NAME=VALUE, such as search.patches=128")
        try:
            nest(values, place.strip(), yaml.safe_load(value))
        except yaml.YAMLError:
            raise UsageError(f"--set {text}: the value is not valid YAML") from None
    return values


def nest(values: dict[str, Any], place: str, value: Any) -> None:
    """Put a value where its dotted name says, in place of what is there."""
    *sections, key = place.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[key] = value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"cannot read the settings file {path}: {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UsageError(f"the settings file {path} is not valid YAML{where}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"the settings file {path} must hold keys and values, such as `model:`")
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with others over them; null takes a value away, a null section changes none."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        elif value is not None:
            merged[key] = value
        elif not isinstance(below, Mapping):
            merged.pop(key, None)
    return merged

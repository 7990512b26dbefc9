"""Reading settings: a YAML file sets them, the command line wins, unknown keys fail."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from drc.core.errors import UsageError
from drc.settings.recipes import settings_of
from drc.settings.runs import WHICH_NETWORK, AdaptRun, RunSettings, TrainRun

Kind = TypeVar("Kind", RunSettings, TrainRun, AdaptRun)


def load_settings(
    path: Path | str | None,
    overrides: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
    kind: type[Kind] = RunSettings,  # type: ignore[assignment]
) -> Kind:
    """Lay a YAML file of settings over `base`, and the command line over both.

    Where the settings name a recipe, it comes below everything else.

    Args:
        path: the YAML file, or None.
        overrides: nested like `kind`; entries that are None are left out.
        base: the settings of a run that goes on; None for the defaults.
        kind: of the run.

    Raises:
        UsageError: a missing or unreadable file, an unknown key, or a value out of its range.
    """
    file = _read_yaml(Path(path)) if path is not None else {}
    merged = _merge(_merge(base or {}, file), overrides)
    # The stored settings of a run that goes on hold those of its recipe.
    if not base and "recipe" in kind.model_fields and merged.get("recipe") is not None:
        merged = _merge(
            settings_of(merged["recipe"], merged.get("model"), merged.get("scale")), merged
        )
    try:
        settings = kind.model_validate(merged)
    except ValidationError as error:
        raise UsageError(_explain(error, kind)) from None
    if settings.model is None and settings.weights in (None, "none"):
        raise UsageError(WHICH_NETWORK)
    return settings


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


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = _merge(below if isinstance(below, Mapping) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first problem of a validation error, in one line."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {key!r}; {_nearest(key, kind)}"
    if problem["type"] == "missing":
        return f"the setting {key!r} is missing"
    message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{key} is {problem['input']!r}, but it {message}"


def _nearest(key: str, kind: type[BaseModel]) -> str:
    known = list(_keys(kind))
    last = key.rsplit(".", 1)[-1]
    # The right name in the wrong section is the likeliest mistake.
    moved = [name for name in known if name.rsplit(".", 1)[-1] == last]
    near = moved or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    section = key.rpartition(".")[0]
    names = [name for name in known if name.rpartition(".")[0] == section]
    return f"known: {', '.join(names or known)}"


def _keys(settings: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in settings.model_fields.items():
        yield prefix + name
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _keys(info.annotation, f"{prefix}{name}.")

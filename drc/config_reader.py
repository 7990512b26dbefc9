"""Reading settings: a YAML file sets them, the command line wins, unknown keys fail."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from drc.config import WHICH_NETWORK, RunSettings
from drc.errors import UsageError


def load_settings(
    path: Path | str | None,
    overrides: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
) -> RunSettings:
    """Lay a YAML file of settings over `base`, and the command line over both.

    Args:
        path: the YAML file, or None.
        overrides: nested like `RunSettings`; entries that are None are left out.
        base: the settings of a run that goes on; None for the defaults.

    Raises:
        UsageError: a missing or unreadable file, an unknown key, or a value out of its range.
    """
    file = _read_yaml(Path(path)) if path is not None else {}
    merged = _merge(_merge(base or {}, file), overrides)
    try:
        settings = RunSettings.model_validate(merged)
    except ValidationError as error:
        raise UsageError(_explain(error)) from None
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


def _explain(error: ValidationError) -> str:
    """The first problem of a validation error, in one line."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {key!r}; {_nearest(key)}"
    if problem["type"] == "missing":
        return f"the setting {key!r} is missing"
    message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{key} is {problem['input']!r}, but it {message}"


def _nearest(key: str) -> str:
    known = list(_keys(RunSettings))
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

"""What the settings classes share: their base, the kinds of numbers, and how a field is written."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from drc.core.errors import UsageError

SMALLEST_PATCH = 8

Positive = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Patch = Annotated[int, Field(ge=SMALLEST_PATCH)]


def _absolute(value: str | None) -> str | None:
    """Make a path absolute, because later commands may start in another folder."""
    if value in ("default", "bundled"):
        return None
    return value if value in (None, "none") else str(Path(value).expanduser().absolute())


def _absolute_code(value: str | None) -> str | None:
    """Make the path in `file.py:factory` absolute; other names stay."""
    file, colon, factory = (value or "").rpartition(":")
    return f"{_absolute(file)}{colon}{factory}" if file.endswith(".py") else value


def _absolute_source(value: str | None) -> str | None:
    is_path = value is not None and ":" not in value and is_file(value)
    return _absolute(value) if is_path else _absolute_code(value)


File = Annotated[str | None, AfterValidator(_absolute)]
"""A file or folder; `none` stays, and `default` and `bundled` are None."""

Code = Annotated[str | None, AfterValidator(_absolute_code)]
"""A registered network, or code of the user's."""

Source = Annotated[str | None, AfterValidator(_absolute_source)]
"""A registered network, code of the user's, or a checkpoint file."""

FIXED = "fixed"
"""A run has one from its search on: no later command changes it."""

STEPWISE = "stepwise"
"""A later step may have another, a step that goes on may not."""

FREE = "free"
"""May differ in a step that goes on too, because the result does not depend on it."""


def setting(
    default: Any,
    help: str,
    *,
    on: tuple[str, ...] = (),
    flag: str = "",
    none: str = "",
    change: str = STEPWISE,
    several: bool = False,
) -> Any:
    """A field of a settings class: the one place that says all there is to say of a setting.

    Args:
        default: its value where nothing is said.
        help: what it is, as a phrase; the options and the tables of the documentation print it.
        on: the commands with an option that sets it; none where `--set` alone does.
        flag: that option, unless it is called as the setting.
        none: what None stands for, where that is the default.
        change: `FIXED`, `STEPWISE` or `FREE`: whether later steps and a resume may change it.
        several: whether the option may be given several times.
    """
    mark: dict[str, Any] = dict(on=on, flag=flag, none=none, change=change, several=several)
    return Field(default, description=help, json_schema_extra=mark)


class Settings(BaseModel):
    """Base of the settings classes: unknown keys are refused, values do not change.

    Raises:
        UsageError: an unknown key, or a value out of its range; one line that names it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(_explain(error, type(self))) from None

    # Or pydantic would build sections by it, and the line would name a key without its section.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


Validated = TypeVar("Validated", bound=BaseModel)


def validated(kind: type[Validated], values: Mapping[Any, Any]) -> Validated:
    """Settings of a kind from plain values. Raises UsageError of one line, as `Settings` does."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(error, kind)) from None


def is_section(annotation: Any) -> bool:
    """Whether a field of this type holds settings of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def names_of(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings and sections."""
    for name, info in kind.model_fields.items():
        yield prefix + name
        if is_section(info.annotation):
            yield from names_of(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first problem of a validation error, in one line."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {key!r}; {_nearest(key, kind)}"
    message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{key} is {problem['input']!r}, but it {message}"


def _nearest(key: str, kind: type[BaseModel]) -> str:
    known = list(names_of(kind))
    last = key.rsplit(".", 1)[-1]
    # The right name in the wrong section is the likeliest mistake.
    moved = [name for name in known if name.rsplit(".", 1)[-1] == last]
    near = moved or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    section = key.rpartition(".")[0]
    names = [name for name in known if name.rpartition(".")[0] == section]
    return f"known: {', '.join(names or known)}"


def is_file(name: str) -> bool:
    """Whether `name` is meant as a checkpoint file, not as a registered network."""
    return len(Path(name).parts) > 1 or bool(Path(name).suffix)

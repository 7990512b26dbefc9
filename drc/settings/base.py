"""What the settings classes share: their base, the kinds of numbers, and paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SMALLEST_PATCH = 8

Positive = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of the settings classes: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def absolute(value: str | None, keep: tuple[str, ...], default: str) -> str | None:
    """Make a path absolute, because later commands may start in another folder."""
    if value is None or value == default:
        return None
    return value if value in keep else str(Path(value).expanduser().absolute())


def absolute_code(value: str | None) -> str | None:
    """Make the path in `file.py:factory` absolute; other names stay."""
    file, colon, factory = (value or "").rpartition(":")
    if not file.endswith(".py"):
        return value
    return f"{absolute(file, keep=(), default='')}{colon}{factory}"


def is_file(name: str) -> bool:
    """Whether `name` is meant as a checkpoint file, not as a registered network."""
    return len(Path(name).parts) > 1 or bool(Path(name).suffix)

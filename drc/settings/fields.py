"""What the fields of the settings say of themselves, and which of them may change in a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drc.settings.base import FIXED, FREE, STEPWISE, Settings, is_section


@dataclass(frozen=True)
class Setting:
    """One setting of a run, as `drc.settings.base.setting` wrote it.

    Attributes:
        place: its dotted name, such as `search.ratio`.
        kind: annotation of its values.
        bounds: of them, as pydantic keeps them.
        default: in this class.
        help, on, flag, none, change, several: as for `drc.settings.base.setting`.
    """

    place: str
    kind: Any
    bounds: tuple[Any, ...]
    default: Any
    help: str = ""
    on: tuple[str, ...] = ()
    flag: str = ""
    none: str = ""
    change: str = STEPWISE
    several: bool = False


def fields_of(kind: type[Settings], prefix: str = "") -> Iterator[Setting]:
    """All settings of a class, those of its sections included."""
    for name, info in kind.model_fields.items():
        if is_section(info.annotation):
            yield from fields_of(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
            continue
        # A class with another default only leaves the rest to the one that it comes from.
        bases = (base.model_fields.get(name) for base in kind.__mro__ if issubclass(base, Settings))
        said = next(base for base in bases if base is not None and base.description)
        mark: dict[str, Any] = {**said.json_schema_extra}  # type: ignore[dict-item]
        mark["flag"] = mark["flag"] or f"--{name.replace('_', '-')}"
        yield Setting(
            prefix + name, info.annotation, tuple(info.metadata), info.default,
            said.description or "", **mark,
        )  # fmt: skip


def leaves(settings: Settings, mode: str = "python") -> dict[str, Any]:
    """Dotted name -> value; `mode` is that of pydantic's `model_dump`."""
    found: dict[str, Any] = {}
    for key, value in settings.model_dump(mode=mode).items():
        below = value if isinstance(value, dict) else {"": value}
        found.update({f"{key}.{name}".rstrip("."): leaf for name, leaf in below.items()})
    return found


def identity(settings: Settings) -> dict[str, Any]:
    """What two runs must share to have one result: dotted name -> plain value."""
    values = leaves(settings, mode="json")
    return {s.place: values[s.place] for s in fields_of(type(settings)) if s.change != FREE}


def refused(
    stored: Settings, given: Settings, command: str = "", resume: bool = False
) -> list[str]:
    """The settings that differ from a run's own though they may not, by dotted name.

    Args:
        stored: settings of the run.
        given: what it would go on with.
        command: that goes on, such as `drc prune`.
        resume: an interrupted step goes on; else a later step begins.
    """
    before, after = leaves(stored), leaves(given)
    kept = {FIXED, STEPWISE} if resume else {FIXED}
    if command == "drc prune" and before.get("search.front"):
        after["search.ratio"] = before["search.ratio"]  # any of the plans that the run has
    return [
        setting.place
        for setting in fields_of(type(stored))
        if setting.change in kept and before[setting.place] != after[setting.place]
    ]

"""The options of the commands: those of the settings, made from their fields, and shared others.

A setting says itself which option sets it and which commands take that (`drc.settings`), so the
signature of a command holds only what is no setting. Nothing here builds the settings before a
command is to run or to tell its options: `drc --help` does without.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from drc.core.errors import UsageError

if TYPE_CHECKING:
    from drc.settings.fields import Setting
    from drc.settings.run import NetworkRun

Scale = Annotated[int | None, typer.Option(help="Upscaling factor [default: the network's].")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda:N [default: auto].")]
Uniform = Annotated[
    bool,
    typer.Option(
        "--uniform",
        help="Widths that programs built on spandrel load as a plain, smaller architecture: "
        "short for --strategy plain.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(help="YAML file of settings; --set wins over it, and other options over both."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any setting, such as search.patches=128; repeatable."
    ),
]
Run = Annotated[Path | None, typer.Option(help="Run folder to go on with [default: newest].")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No logs and no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")]

_SHARED: dict[str, tuple[Any, Any]] = {
    "config": (Config, None), "set": (Set, None), "run": (Run, None), "quiet": (Quiet, False),
}  # fmt: skip
"""What every command with settings takes besides them, with its default."""

_GO_ON = ("prune", "finetune", "report")
"""Commands that start from the settings of a run, where no option says otherwise."""


@dataclass(frozen=True)
class Option:
    """An option of one command, and the settings that it sets.

    Attributes:
        name: by which the command line hands its value on.
        settings: several where one value is for several steps; the first describes it.
    """

    name: str
    settings: tuple[Setting, ...]

    @property
    def flag(self) -> str:
        return self.settings[0].flag

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(setting.place for setting in self.settings)

    @property
    def is_switch(self) -> bool:
        return self.settings[0].kind is bool

    def spelled(self, value: Any) -> list[str]:
        """The words that give it a value, or the values of a list."""
        if self.is_switch:
            return [self.flag if value else _off(self.flag)]
        values = value if isinstance(value, (list, tuple)) else [value]
        return [word for one in values for word in (self.flag, str(one))]


def kind_of(command: str) -> type[NetworkRun]:
    """The settings of the runs that a command works on."""
    from drc.settings.run import AdaptRun, RunSettings, TrainRun

    return {"train": TrainRun, "adapt": AdaptRun}.get(command, RunSettings)


@cache
def options_of(command: str) -> tuple[Option, ...]:
    """The options of a command that set settings, in the order of these."""
    found = []
    for flag, settings in _by_flag(kind_of(command)).items():
        here = tuple(setting for setting in settings if command in setting.on)
        if here:
            found.append(Option(_name(flag if here == settings else here[0].place), here))
    return tuple(found)


@cache
def _by_flag(kind: type[NetworkRun]) -> dict[str, tuple[Setting, ...]]:
    """The settings that have an option, under it."""
    from drc.settings.fields import fields_of

    found: dict[str, tuple[Setting, ...]] = {}
    for setting in fields_of(kind):
        if setting.on:
            found[setting.flag] = (*found.get(setting.flag, ()), setting)
    return found


def _name(text: str) -> str:
    return text.removeprefix("--").replace("-", "_").replace(".", "_")


def with_settings(command: str, function: Callable[..., None]) -> Callable[..., None]:
    """The function of a command with the options of its settings in its signature.

    It is called with the parameters of its own, and finds the others in `ctx.params`. One of its
    own that is called as a setting's option stands in place of that.
    """
    options = options_of(command)
    if not options:
        return function
    own = inspect.signature(function, eval_str=True).parameters
    kinds = {option.name: (_annotation(option, command), None) for option in options}
    added = {name: given for name, given in {**kinds, **_SHARED}.items() if name not in own}

    def run(**values: Any) -> None:
        function(**{name: values[name] for name in own})

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *(inspect.Parameter(n, keyword, annotation=a, default=d) for n, (a, d) in added.items()),
        *(parameter.replace(kind=keyword) for parameter in own.values()),
    ]
    run.__doc__ = function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _annotation(option: Option, command: str) -> Any:
    """What typer is to know of an option."""
    setting = option.settings[0]
    kind, choices = _value_type(setting.kind)
    text = setting.help[0].upper() + setting.help[1:]
    if choices:
        *others, last = map(str, choices)
        text += f": {', '.join(others)} or {last}" if others else f": {last}"
    default = _default(setting)
    if command in _GO_ON:
        default = f"the run's, or {default}"
    text += f" [default: {default}]." if default else "."
    flags = f"{option.flag}/{_off(option.flag)}" if option.is_switch else option.flag
    metavar = {int: "INTEGER", float: "FLOAT"}.get(kind) if setting.several else None
    spelled = typer.Option(flags, help=text, metavar=metavar)
    return Annotated[(list[kind] if setting.several else kind) | None, spelled]  # type: ignore[valid-type]


def _value_type(annotation: Any) -> tuple[type, tuple[Any, ...]]:
    """What an option reads, text where a setting takes several kinds; and the only values, if so.

    The bounds are checked with the other settings, for the file and the command line alike.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _value_type(parts[0])
    if origin in (Union, types.UnionType):
        kinds = [_value_type(part) for part in parts if part is not type(None)]
        return kinds[0] if len(kinds) == 1 else (str, ())
    if origin is Literal:
        return type(parts[0]), parts
    return annotation, ()


def _default(setting: Setting) -> str:
    if isinstance(setting.default, bool):
        return "yes" if setting.default else "no"
    return setting.none if setting.default is None else str(setting.default)


def _off(flag: str) -> str:
    return f"--no-{flag.removeprefix('--')}"


def overrides(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line sets, nested as `RunSettings` nests it; the rest is left out."""
    return _nested(params, kind_of("compress"))


def training_overrides(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line sets, nested as `TrainRun` and `AdaptRun` nest it."""
    return _nested(params, kind_of("adapt"))


def _nested(params: Mapping[str, Any], kind: type[NetworkRun]) -> dict[str, Any]:
    """The values of `--set`, and over them those of the options that were given."""
    from drc.settings.reader import nest, parse_assignments

    nested = parse_assignments(params.get("set") or ())
    for name, value in _spelled_out(params).items():
        if value is None or value == ():  # how a list that was not given comes
            continue
        for place in _places(kind, name):
            nest(nested, place, value)
    return nested


def _places(kind: type[NetworkRun], name: str) -> Iterator[str]:
    """The settings that an option of this name sets in one command or another."""
    for flag, settings in _by_flag(kind).items():
        yield from (s.place for s in settings if name in (_name(flag), _name(s.place)))


def _spelled_out(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with the long form of `--uniform`. Raises UsageError."""
    if not params.get("uniform"):
        return params
    if params.get("strategy") not in (None, "plain"):
        raise UsageError(
            f"--uniform is short for --strategy plain, not {params['strategy']}; pass one of them"
        )
    return {**params, "strategy": "plain"}


def lr_size(text: str) -> tuple[int, int]:
    """Height and width of `HxW`. Raises UsageError."""
    height, by, width = text.lower().partition("x")
    if not (by and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"--lr-size is {text!r}; pass height and width, such as 270x480")
    return int(height), int(width)

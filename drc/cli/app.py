"""The command `drc`. Nothing here imports torch: each command does when it runs."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from functools import cache
from types import FrameType, ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from drc import __version__
from drc.cli.errors import INTERRUPTED, explain, is_printed_elsewhere
from drc.cli.options import with_settings

COMMANDS = (
    "demo", "compress", "search", "prune", "finetune", "report", "export", "upscale", "bench",
    "train", "adapt", "inspect", "models", "degrade",
)  # fmt: skip
"""Each is the function `command` of the module of this name in `drc.cli.commands`."""

EPILOG = "Exit codes: 0 done, 1 failed, 2 usage, 3 budget out of reach, 130 interrupted."


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"drc.cli.commands.{name}")


@cache
def _build(name: str) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(with_settings(name, _module(name).command))
    return typer.main.get_command(alone)


class Commands(TyperGroup):
    """The group of all commands; the one place where errors become lines and exit codes."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{**arguments, "commands": dict.fromkeys(COMMANDS)})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Build a command when it is asked for: its options need the settings."""
        return _build(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands with the first line of what each says, without their options."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _module(name).command.__doc__.partition("\n")[0]) for name in COMMANDS]
            )

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            explained = explain(error)
            if explained is None:
                raise
            line, code = explained
            if not is_printed_elsewhere():
                print(line, file=sys.stderr)
            raise typer.Exit(code) from error


app = typer.Typer(
    name="drc",
    cls=Commands,
    help="Compress super-resolution networks: search, prune, fine-tune, report.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would double the time of --help
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"drc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print version."),
    ] = False,
) -> None:
    """Options of `drc` itself."""


def main() -> None:
    """Run the command line; does not return."""
    if not _is_one_of_several():  # these may wait for others where no handler is heard
        signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="drc")
    except SystemExit as ended:
        if ended.code == INTERRUPTED or (ended.code and _is_one_of_several()):
            _leave(INTERRUPTED if ended.code == INTERRUPTED else int(ended.code))
        raise
    except BaseException:
        if _is_one_of_several():
            traceback.print_exc()
            _leave(1)
        raise


def _terminate(number: int, frame: FrameType | None) -> None:
    """End by way of what is to be tidied up: temporary files, and processes that were started."""
    raise SystemExit(128 + number)


def _is_one_of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _leave(code: int) -> None:
    """End at once: everything is written.

    Torch's threads, stopped in the middle of a pass, may abort a process that takes them down in
    order, and the exit code would be lost. Connections to other processes, closed in order, may
    wait for messages that never come; so they end too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()

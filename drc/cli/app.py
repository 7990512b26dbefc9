"""The command `drc`. Nothing here imports torch: each command does when it runs."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from drc import __version__
from drc.cli.commands import (
    adapt,
    bench,
    compress,
    degrade,
    demo,
    export,
    finetune,
    inspect,
    models,
    prune,
    report,
    search,
    train,
    upscale,
)
from drc.cli.errors import INTERRUPTED, explain, is_printed_elsewhere

EPILOG = "Exit codes: 0 done, 1 failed, 2 usage, 3 budget out of reach, 130 interrupted."


class Commands(TyperGroup):
    """The group of all commands; the one place where errors become lines and exit codes."""

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


_COMMANDS = (
    demo, compress, search, prune, finetune, report, export, upscale, bench, train, adapt, inspect,
    models, degrade,
)  # fmt: skip
for _module in _COMMANDS:
    app.command(name=_module.__name__.rsplit(".", 1)[-1])(_module.command)


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

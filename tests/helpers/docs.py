"""The pages of the documentation, and what their blocks of code name."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from drc.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
_DRC: Any = typer.main.get_command(app)
COMMANDS = {name: _DRC.get_command(None, name) for name in _DRC.commands}

WALKS = ("tutorial.md", "how_to/onnx.md")
"""Pages whose blocks are run in this order, in one folder: each goes on from what is there."""

COMING: set[str] = set()
"""Commands and options that pages name before `drc` has them; blocks with these are left out."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: its path below docs/.
        heading: the `## ` heading that it stands under; empty for none.
        language: what follows the fence.
        text: what stands between the fences.
    """

    page: str
    heading: str
    language: str
    text: str


def page_name(path: Path) -> str:
    """A page's path below docs/, or README.md at the root."""
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found, heading = [], ""
    pattern = r"^## (?P<heading>[^\n]*)$|^```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```"
    for match in re.finditer(pattern, path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        if match["heading"]:
            heading = match["heading"]
        else:
            found.append(Block(page_name(path), heading, match["language"], match["text"]))
    return found


def options_of(command: str, off: bool = False) -> set[str]:
    """The long options of a command, from the command line itself; with `off` the --no-... too."""
    found = [o for p in COMMANDS[command].params for o in [*p.opts, *(p.secondary_opts * off)]]
    return {option for option in found if option.startswith("--")}


def command_in(line: str) -> tuple[str, set[str]] | None:
    """The command of `drc` that a line calls, and the long options it gives."""
    match = re.search(r"\bdrc ([a-z]+)(?!\S)(.*)", line)
    if match is None or match[1] == "has":  # `drc has no rule for ...` is a message
        return None
    return match[1], {word for word in shlex.split(match[2]) if word.startswith("--")}


def is_to_come(line: str) -> bool:
    """Whether a line calls what `COMING` names and `drc` does not have yet."""
    called = command_in(line)
    if called is None or not {called[0], *called[1]} & COMING:
        return False
    return called[0] not in COMMANDS or not called[1] <= options_of(called[0], off=True)

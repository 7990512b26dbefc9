"""The command starts at once, and says what it can do."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from helpers.cli import drc
from helpers.docs import COMMANDS

import drc as package
from drc.evaluation.speed import MODES
from drc.exporters.backends import backends
from drc.exporters.formats.base import list_formats
from drc.selection.criteria.base import list_criteria
from drc.selection.widths.base import list_strategies

HEAVY = ("torch", "numpy", "rich", "PIL", "jinja2", "pydantic")


def _imported_by(arguments: list[str]) -> set[str]:
    """The heavy packages that a command line leaves imported."""
    code = (
        "import sys\n"
        "from drc.cli.app import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        f"print('imported:', *[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [(["--help"], set()), (["compress", "--help"], {"pydantic"})],
)
def test_help_imports_nothing_heavy(arguments, needed):
    assert _imported_by(arguments) == needed


def test_completion_offers_the_options_of_the_settings(tmp_path):
    words = {"_DRC_COMPLETE": "complete_bash", "COMP_WORDS": "drc search --pat", "COMP_CWORD": "2"}
    assert drc(cwd=tmp_path, **words).stdout.split() == ["--patches", "--patch"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(tmp_path, command):
    result = drc(command, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert f"drc {command}" in result.stdout


def test_the_list_of_commands_tells_each_in_a_whole_sentence(tmp_path):
    text = drc("--help", cwd=tmp_path).stdout
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    for command in COMMANDS:
        assert lines[command].endswith("."), lines[command]
        assert not lines[command].endswith("..."), lines[command]


def _modes() -> set[str]:
    with backends([]) as others:
        return {*MODES, *others}


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        ("search", "strategy", list_strategies()),
        ("prune", "importance", list_criteria()),
        ("export", "to", list_formats()),
        ("bench", "modes", _modes()),
    ],
)
def test_help_offers_every_name_there_is(command, option, names):
    (found,) = (p for p in COMMANDS[command].params if p.name == option)
    offered = re.findall(r"\w+", found.help)
    assert set(names) <= set(offered)


def test_version(tmp_path):
    result = drc("--version", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"drc {package.__version__}\n")


def test_shell_completion_is_offered(tmp_path):
    result = drc("--show-completion", "bash", cwd=tmp_path, SHELL="/bin/bash")
    assert "drc" in result.stdout + drc("--help", cwd=tmp_path).stdout
    assert "--install-completion" in drc("--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["compres"], "No such command 'compres'"),
        (["search", "--ratoi", "0.3"], "--ratoi"),
        (["search", "--ratio", "much"], "--ratio"),
        (["finetune", "--steps", "1.5"], "--steps"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(tmp_path, arguments, part):
    result = drc(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert part in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_models_lists_names_scales_and_weights(tmp_path):
    lines = json.loads(drc("models", "--json", cwd=tmp_path).stdout)
    found = {(line["model"], line["scale"]): line["weights"] for line in lines}
    assert found["drn_tiny", 4] == "shipped"
    assert found["drn_s", 8].endswith("DRNS8x.pt")
    text = drc("models", cwd=tmp_path).stdout
    assert len(text.splitlines()) == len(lines) + 1  # a line of headings

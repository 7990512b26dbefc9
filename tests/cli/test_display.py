"""Progress: bars on a terminal, lines elsewhere, nothing when quiet or in a second process."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from drc.cli.display import Display

SCRIPT = """
import sys
from drc.cli.display import Display
display = Display(quiet="quiet" in sys.argv)
display.log("search ...")
for done in range(1, 6):
    display("scores", done, 5, {"loss": 0.123456})
display("download", 5, 0, {})
display.close()
print("result")
display("later", 1, 2, {})
display.close()
"""


def _on_a_terminal(folder: Path, *arguments: str) -> str:
    """Everything that the script shows on stderr when that is a terminal."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        text=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    stdout, _ = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (0, "result\n")
    return shown.decode()


def test_a_terminal_shows_bars(tmp_path):
    shown = _on_a_terminal(tmp_path)
    for part in ("search ...", "scores", "5/5", "loss 0.1235", "download", "later"):
        assert part in shown


def test_quiet_shows_nothing_on_a_terminal(tmp_path):
    assert _on_a_terminal(tmp_path, "quiet") == ""


@pytest.mark.parametrize(("rank", "lines"), [("0", ["search ..."]), ("1", [])])
def test_without_a_terminal_there_are_lines_from_the_first_process(rank, lines):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, "RANK": rank},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines() == lines


@pytest.mark.parametrize(
    ("done", "total", "line"),
    [(0, 0, "download"), (5, 0, "download: 5"), (0, 9, "download: 0/9"), (5, 9, "download: 5/9")],
)
def test_a_length_that_nobody_knows_is_left_out(monkeypatch, capsys, done, total, line):
    monkeypatch.setattr("drc.cli.display._SECONDS_BETWEEN_LINES", 0.0)
    Display()("download", done, total, {})
    assert capsys.readouterr().err.strip() == line

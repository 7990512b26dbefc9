"""On every page of the documentation commands exist, links lead somewhere, and Python runs."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from helpers.docs import (
    DOCS,
    PAGES,
    ROOT,
    WALKS,
    blocks_of,
    command_in,
    is_to_come,
    options_of,
    page_name,
)

TEXTS = [ROOT / "README.md", *PAGES]


@pytest.mark.parametrize("path", TEXTS, ids=page_name)
def test_commands_in_the_text_exist(path):
    blocks = [block.text for block in blocks_of(path) if block.language == "bash"]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(drc [^`]*)`", path.read_text("utf-8"))
    for line in lines:
        called = command_in(line)
        if called is not None and not is_to_come(line):
            assert called[1] <= options_of(called[0], off=True), line


@pytest.mark.parametrize("path", TEXTS, ids=page_name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        place = path.parent / file if file else path
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


def test_python_on_the_pages_runs(tmp_path):
    """All of it in one process, each piece with names of its own."""
    pages = [path for path in PAGES if path not in {DOCS / name for name in WALKS}]
    blocks = [block for path in pages for block in blocks_of(path) if block.language == "python"]
    assert len(blocks) >= 10
    for number, block in enumerate(blocks):
        (tmp_path / f"piece{number}.py").write_text(block.text)
    program = f"import runpy\nfor n in range({len(blocks)}): runpy.run_path(f'piece{{n}}.py')\n"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr

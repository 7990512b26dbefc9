"""The tutorial is true: its commands run in order, and print what the page says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.docs import DOCS, WALKS, Block, blocks_of, is_to_come

BLOCKS = [block for name in WALKS for block in blocks_of(DOCS / name)]
STEPS = [place for place, block in enumerate(BLOCKS) if block.language in ("bash", "python")]


def step_name(place: int) -> str:
    block = BLOCKS[place]
    return f"{Path(block.page).stem}-{block.text.splitlines()[0][:40]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tutorial")


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block as a reader would: the `drc` of this Python, and nothing to download from."""
    nowhere = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "TORCH_HOME": str(folder / "hub"),
        "COLUMNS": "160",
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }
    start = ["bash", "-euo", "pipefail"] if block.language == "bash" else [sys.executable]
    return subprocess.run(
        [*start, "-c", block.text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )


def is_skipped(place: int) -> bool:
    """Whether a step, or on a guide one that it goes on from, needs a command that is to come."""
    block = BLOCKS[place]
    before = [b for b in BLOCKS[:place] if b.page == block.page != WALKS[0]]
    return any(is_to_come(line) for b in [*before, block] for line in b.text.splitlines())


def quoted_after(place: int) -> list[Block]:
    """The blocks of output between a step and the next one."""
    following = BLOCKS[place + 1 : next((p for p in STEPS if p > place), None)]
    return [b for b in following if b.language == "text" and b.page == BLOCKS[place].page]


def claims(text: str) -> set[str]:
    """The words and paths of quoted output; numbers, which differ between machines, are none."""
    words = re.split(r"[\s│┃]+", text)
    return {word for word in words if word and (not re.search(r"\d", word) or "/" in word)}


@pytest.mark.parametrize("place", STEPS, ids=step_name)
def test_step(place, folder):
    if is_skipped(place):
        pytest.skip("drc does not have this command yet")
    result = run(BLOCKS[place], folder)
    assert result.returncode == 0, result.stderr
    for block in quoted_after(place):
        missing = [word for word in claims(block.text) if word not in result.stdout]
        assert not missing, f"{missing} not in:\n{result.stdout}"


def test_the_tutorial_goes_all_the_way():
    called = " ".join(BLOCKS[place].text for place in STEPS)
    for command in ("inspect", "search", "prune", "finetune", "report", "bench", "drc.load"):
        assert command in called


def test_files_named_on_the_page_are_there(folder):
    """After all steps; the page names files of the run folder, and those that its code writes."""
    text = (DOCS / WALKS[0]).read_text("utf-8").split("\n## Ship it")[0]
    paths = set(re.findall(r"runs/first[\w./]*\.\w+|cat_\w+\.png", text))
    assert len(paths) > 5
    assert not [path for path in sorted(paths) if not (folder / path).exists()]

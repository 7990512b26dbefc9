"""Weights that cannot be used: one line from the real command, and no run folder left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.cli import TinyWork, assert_one_line, drc

from drc.networks.registry import build


class Custom:
    """Something that only a pickle can hold."""


def _search(work: TinyWork, *arguments: str | Path, **environment: str):
    return drc("search", "--config", work.config, *arguments, cwd=work.folder, **environment)


def test_missing_weights(work):
    assert_one_line(_search(work, "--weights", "nowhere.pth"), 1, "nowhere.pth")
    assert not any((work.folder / "runs").glob("*"))


def test_corrupt_weights(work):
    (work.folder / "w.pth").write_bytes(b"PK\x03\x04 not a checkpoint")
    assert_one_line(_search(work, "--weights", "w.pth"), 1, "w.pth", "corrupt")


def test_a_pickle_that_would_run_code(work):
    torch.save({"state_dict": Custom()}, work.folder / "w.pth")
    assert_one_line(_search(work, "--weights", "w.pth"), 1, "w.pth", "refused", "Custom")


def test_weights_of_another_network_name_the_first_keys(work):
    torch.save(build("drn_s", 8).state_dict(), work.folder / "w.pth")
    line = "does not fit drn_tiny x4"
    assert_one_line(_search(work, "--weights", "w.pth"), 1, line, "down.", "drn_s x8")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9"])  # nothing listens on the discard port
def test_offline_the_line_says_which_file_to_fetch_and_how_to_pass_it(work, proxy):
    result = _search(
        work, "--model", "drn_s", "--weights", "default", http_proxy=proxy, https_proxy=proxy
    )
    assert_one_line(result, 1, "DRNS4x.pt", "https://github.com/", "--weights FILE")


def test_a_dual_model_that_is_missing(work):
    assert_one_line(_search(work, "--dual", "nowhere.pt"), 1, "nowhere.pt")

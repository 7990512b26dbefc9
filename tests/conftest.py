"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.cli import finished_run, work

__all__ = ["finished_run", "work"]  # fixtures

if "PYTEST_XDIST_WORKER" in os.environ:  # workers, and what they start, share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1))))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of datasets and parity files, which is not part of the repository."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("DRC_SHARED", default))
    if not (folder / "spec").is_dir():
        pytest.skip(f"no datasets and parity files at {folder}; set DRC_SHARED to their folder")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For convolutions that are too small to share between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

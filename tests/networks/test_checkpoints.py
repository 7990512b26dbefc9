"""Reading checkpoint files: Ctrl-C while it goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from drc.networks.checkpoints import read_file


@pytest.fixture
def alarm() -> Iterator[None]:
    """Lets a timer do what Ctrl-C does."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_ctrl_c_while_reading_is_no_corrupt_file(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    save_file({f"layer{i}.weight": torch.randn(16, 16) for i in range(300)}, path)
    read_file(path)
    start = time.perf_counter()
    read_file(path)
    whole = time.perf_counter() - start
    for share in range(1, 41):
        with pytest.raises(KeyboardInterrupt):
            # Python drops what is raised in a finaliser; then the next one counts.
            signal.setitimer(signal.ITIMER_REAL, max(1e-5, whole * share / 40), 10.0)
            while True:
                read_file(path)
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_tensors_come_out_as_they_went_in(tmp_path: Path) -> None:
    path = tmp_path / "kinds.safetensors"
    kinds = {
        "half": torch.randn(3, 5).bfloat16(),
        "flag": torch.tensor([True, False]),
        "count": torch.tensor(7),
        "none": torch.empty(0, 4),
    }
    save_file(kinds, path)
    found = read_file(path)
    assert found.keys() == kinds.keys()
    for name, tensor in kinds.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)

"""A batch in parts: the same gradients, no trace of the trial, and real shortage of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from drc.core.errors import TrainingError
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.networks.dual import DualModel
from drc.networks.registry import build
from drc.settings import RecoverySettings
from drc.training.loop import run_training
from drc.training.pieces import fewest_pieces, in_pieces

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("pieces", [1, 2, 3, 5])
def test_parts_of_a_batch_average_to_the_whole(pieces: int) -> None:
    batch, other = torch.rand(5, 3), torch.rand(7, 2)
    mean = in_pieces((batch,), pieces, lambda share, x: x.mean(0))
    torch.testing.assert_close(mean, batch.mean(0))
    sizes: list[tuple[int, int]] = []

    def work(share: float, x: Tensor, y: Tensor) -> Tensor:
        sizes.append((len(x), len(y)))
        assert share == len(x) / 5
        return torch.tensor(0.0)

    in_pieces((batch, other), pieces, lambda s, x, y: work(s, x, y))
    assert (sum(a for a, _ in sizes), sum(b for _, b in sizes)) == (5, 7)


class Hungry(nn.Module):
    """Remembers batches in a buffer, draws random numbers, and has memory for `room` images."""

    scale = 2
    value_range = 1.0

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more.")
        x = nn.functional.dropout(self.norm(self.conv(x)), 0.1)
        return nn.functional.pixel_shuffle(x, 2)


@pytest.mark.parametrize(("room", "pieces"), [(8, 1), (4, 2), (3, 4), (1, 8)])
def test_the_fewest_parts_that_fit_are_found_without_a_trace(room: int, pieces: int) -> None:
    network, batch = Hungry(room), (torch.rand(8, 3, 8, 8),)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    random = torch.get_rng_state()

    def run(count: int) -> None:
        in_pieces(batch, count, lambda share, x: _backward(network, x))

    assert fewest_pieces(network, batch, run, spare=0) == pieces
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())


def _backward(network: nn.Module, x: Tensor) -> Tensor:
    loss = network(x).square().mean()
    loss.backward()
    return loss.detach()


def test_not_even_one_image_fits() -> None:
    network, batch = Hungry(0), (torch.rand(2, 3, 8, 8),)
    with pytest.raises(TrainingError, match="one image at a time; use a smaller --patch"):
        fewest_pieces(network, batch, lambda n: in_pieces(batch, n, lambda s, x: network(x)), 0)


SCRIPT = """
import resource, sys, torch
from drc.settings import RecoverySettings
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.networks.registry import build
from drc.training.loop import TrainingFiles, run_training
torch.set_num_threads(1)
model = build("drn_tiny")
data = list(crop_loader(bundled_pairs()[:1], 4, patch=16, batch=48, steps=1, seed=0))
run_training(model, [{k: v[:1] for k, v in data[0].items()}], settings=RecoverySettings(steps=1))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (250 << 20), -1))
settings = RecoverySettings(steps=1, auto_batch="auto" in sys.argv)
try:
    run_training(model, data, settings=settings, device="cpu")
    print("done")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("auto", [False, True])
def test_memory_that_the_machine_really_refuses(auto: bool) -> None:
    command = [sys.executable, "-c", SCRIPT, *(["auto"] if auto else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if auto:
        assert done.stdout == "done\n", done.stderr + done.stdout
    else:
        assert "TrainingError out of memory at step 1, with 48 crops of 16x16" in done.stdout
        assert "use a smaller --batch or --patch, or --auto-batch" in done.stdout


def test_training_in_parts_gives_the_same_network(one_thread: None) -> None:
    """The two ways of summing differ in the last digits of the first step; Adam enlarges them."""
    data = list(crop_loader(bundled_pairs()[:1], 4, patch=8, batch=4, steps=1, seed=0))
    found = []
    for room in (4, 2):
        model = build("drn_tiny")
        torch.manual_seed(0)
        for p in model.parameters():
            nn.init.normal_(p, std=0.02)
        _limit(model, room)
        settings = RecoverySettings(steps=3, auto_batch=True, train_dual=True, ema=0)
        torch.manual_seed(1)
        dual = DualModel(4)
        finetune_one = run_training(model, data, dual=dual, settings=settings, device="cpu")
        found.append((finetune_one.state_dict(), dual.state_dict()))
    for ours, theirs in zip(*found, strict=True):
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=2e-5, msg=name)


def _limit(model: nn.Module, room: int) -> None:
    def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more.")

    model.register_forward_pre_hook(check)

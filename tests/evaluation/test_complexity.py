"""Parameters and MACs: by hand, the whole published table, and no trace left on the network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import drc
from drc.core.errors import ModelError
from drc.evaluation.complexity import macs_per_weight
from drc.networks.registry import build

# The published parameters, and MACs in G at a 96x96 LR image.
_PUBLISHED = json.loads((Path(__file__).parents[1] / "files" / "published_drn.json").read_text())
TABLE = {
    (name.rpartition("_x")[0], int(name.rpartition("_x")[2])): (row["params"], row["macs_g"])
    for name, row in _PUBLISHED.items()
}


class Small(nn.Module):
    """A network of the user's: one conv, PixelShuffle, one linear over channels, a matmul."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.up = nn.PixelShuffle(2)
        self.mix = nn.Linear(2, 3)
        self.register_buffer("table", torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.up(self.conv(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x @ torch.eye(x.shape[-1], device="cpu")  # made on one device, as careless code does


def test_by_hand() -> None:
    height, width = 10, 12
    result = drc.complexity(Small(), (height, width))
    pixels = height * width
    assert result.params == (3 * 8 * 9 + 8) + (2 * 3 + 3)
    assert (
        result.macs == pixels * 3 * 8 * 9 + 4 * pixels * 2 * 3 + 3 * 2 * height * (2 * width) ** 2
    )
    assert (type(result.params), type(result.macs)) == (int, int)
    assert result.lr_size == (height, width)
    assert result.counter.startswith("fvcore 0.")


@pytest.mark.parametrize(("name", "scale"), TABLE)
def test_published_table(name: str, scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted at 4x4 and scaled up, which is exact: all but channel attention goes by pixels."""
    monkeypatch.setitem(sys.modules, "thop", None)  # its cross-check takes longer than the count
    model = build(name, scale)
    result = drc.complexity(model, (4, 4))
    named = model.named_parameters()
    fixed = sum(p.numel() for key, p in named if "conv_du" in key and key.endswith("weight"))
    macs = fixed + (result.macs - fixed) * (96 * 96) // (4 * 4)
    params, giga = TABLE[name, scale]
    assert result.params == params
    assert round(macs / 1e9, 2) == giga


@pytest.mark.parametrize(("name", "scale"), [("drn_s", 4), ("drn_s70", 4)])
def test_published_table_at_its_own_size(name: str, scale: int) -> None:
    result = drc.complexity(build(name, scale))
    assert (result.params, round(result.macs / 1e9, 2)) == TABLE[name, scale]
    assert result.lr_size == (96, 96)


def test_thop_agrees_on_convolutions() -> None:
    result = drc.complexity(build("drn_tiny", 4), (16, 16))
    assert result.thop_macs == pytest.approx(result.macs, rel=0.001)
    assert isinstance(result.thop_macs, int)


def test_without_thop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "thop", None)  # what Python does for a package that is absent
    result = drc.complexity(build("drn_tiny", 4), (8, 8))
    assert result.thop_macs is None
    assert result.macs > 0


def test_the_network_is_not_changed() -> None:
    model = build("drn_tiny", 4).train()
    model.head.eval()

    def state() -> list[object]:
        return [
            [
                (name, m.training, len(m._forward_hooks), *m._buffers)
                for name, m in model.named_modules()
            ],
            [(name, id(p), p.grad, p._version) for name, p in model.named_parameters()],
            sorted(vars(model)),
        ]

    before = state()
    drc.complexity(model, (8, 8))
    assert state() == before
    assert torch.is_grad_enabled()


def test_macs_per_weight_by_hand() -> None:
    pixels = 10 * 12
    counts = macs_per_weight(Small(), (10, 12))
    assert counts["conv.weight"] == pixels * 3 * 8 * 9
    assert counts["mix.weight"] == 4 * pixels * 2 * 3
    assert counts[""] == 3 * 20 * 24**2  # the matmul belongs to no layer
    assert len(counts) == 3


def test_macs_per_weight_sum_to_the_whole() -> None:
    model = build("drn_tiny", 4)
    counts = macs_per_weight(model, (8, 8))
    assert sum(counts.values()) == drc.complexity(model, (8, 8)).macs
    assert set(counts) - {""} <= {key for key, _ in model.named_parameters()}


def test_shared_parameters_count_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))
    model[1].weight = model[0].weight
    result = drc.complexity(model, (4, 4))
    assert result.params == 81 + 3 + 3
    assert result.macs == 2 * 16 * 81


def test_a_network_that_does_not_run() -> None:
    with pytest.raises(ModelError, match="cannot count the MACs of a 4x4 LR image: Runtime") as e:
        drc.complexity(nn.Conv2d(5, 3, 3), (4, 4))
    assert "\n" not in str(e.value)

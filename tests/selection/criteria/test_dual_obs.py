"""Second-order importance, against least squares done the long way."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from drc.core.errors import TrainingError
from drc.graph.trace import trace
from drc.networks.dual import DualModel
from drc.networks.registry import build
from drc.selection.calibration import Calibration
from drc.selection.criteria.base import score
from drc.selection.criteria.dual_obs import DAMPING, _eliminate, _Reader
from drc.selection.criteria.moments import LayerMoments, collect


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def long_way(x: np.ndarray, weight: np.ndarray, left: list[int], g: np.ndarray) -> float:
    """Half the G-weighted error of the best weights on the columns `left`, per row of `x`."""
    best = np.linalg.lstsq(x[:, left], x @ weight.T, rcond=None)[0]
    missed = x @ weight.T - x[:, left] @ best
    return 0.5 * np.einsum("ni,ij,nj->", missed, g, missed) / len(x)


@pytest.mark.parametrize("per_atom", [1, 2])
def test_costs_are_those_of_refitting_without_the_channel(per_atom: int) -> None:
    atoms, outputs = 5, 3
    width = atoms * per_atom
    x = rng().normal(size=(400, width + 1)) @ rng().normal(size=(width + 1, width + 1))
    x[:, -1] = 1.0
    weight = rng().normal(size=(outputs, width + 1))
    root = rng().normal(size=(outputs, outputs))
    g = root @ root.T
    columns = torch.arange(width).reshape(atoms, per_atom)
    moments = LayerMoments(torch.from_numpy(x.T @ x / len(x)), torch.from_numpy(g))
    damping = DAMPING * moments.columns.diagonal()[:-1].mean().item()
    # Damping is the same as rows of their own, one per column.
    extra = np.sqrt(len(x) * damping) * np.eye(width, width + 1)
    reader = _Reader(torch.from_numpy(weight), moments, columns)
    gone: list[int] = []
    for atom in (3, 0, 4):
        kept = [c for a in range(atoms) if a not in gone for c in columns[a].tolist()]
        before = _damped(x, extra, weight, [*kept, width], g)
        for other in set(range(atoms)) - set(gone):
            left = [c for c in kept if c not in columns[other].tolist()]
            after = _damped(x, extra, weight, [*left, width], g)
            assert reader.costs()[other].item() == pytest.approx(after - before, rel=1e-5)
        reader.remove(atom)
        gone.append(atom)


def _damped(
    x: np.ndarray, extra: np.ndarray, weight: np.ndarray, left: list[int], g: np.ndarray
) -> float:
    rows = np.concatenate((x, extra))
    return long_way(rows, weight, left, g) * len(rows) / len(x)


def test_gates_alone_count_what_goes_together() -> None:
    """Gradients that agree make the second channel dearer, ones that cancel make it cheaper."""
    agree, cancel = np.asarray([[1.0, 1.0], [1.0, 1.0]]), np.asarray([[1.0, -1.0], [-1.0, 1.0]])
    assert _eliminate([], agree) == pytest.approx([0.5, 1.5])
    assert _eliminate([], cancel) == pytest.approx([0.5, 0.5])  # never below an earlier one


class Redundant(nn.Module):
    """Channel 3 of the head is a copy of channel 1; channel 0 is read by nothing that matters."""

    scale = 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 6, 3, padding=1)
        self.tail = nn.Conv2d(6, 3, 3, padding=1)
        with torch.no_grad():
            self.head.weight[3], self.head.bias[3] = self.head.weight[1], self.head.bias[1]
            self.tail.weight[:, 0] *= 1e-4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.head(x).relu())


def calibration(model: nn.Module, **options) -> Calibration:
    torch.manual_seed(1)
    batches = [(torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)) for _ in range(2)]
    return Calibration(model, trace(model), batches, patches=8, **options)


def test_a_copy_goes_first_and_its_twin_is_dear_then() -> None:
    model = Redundant().eval()
    before = copy.deepcopy(model.state_dict())
    data = calibration(model)
    scores = score("dual_obs", data)["head"][0]
    order = np.argsort(scores)
    assert set(order[:2]) in ({0, 1}, {0, 3})
    twin = 1 if 3 in order[:2] else 3
    assert scores[twin] > 5 * scores[order[1]]
    assert data.passes.count == 8
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_moments_are_those_of_all_places_of_a_small_image() -> None:
    """With fewer places than are looked at, they can be taken over the whole image."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    model.scale = 1  # type: ignore[assignment]
    lr = torch.rand(2, 3, 8, 8)
    data = Calibration(model, trace(model), [(lr, lr)], patches=2)
    found = collect(data).layers["2"]
    inner = model[:2](lr).permute(0, 2, 3, 1).reshape(-1, 4)
    inner = torch.cat((inner, torch.ones(len(inner), 1)), 1).double()
    assert torch.allclose(found.columns, inner.T @ inner / len(inner), atol=1e-6)
    # The tail writes the image: every gradient is +-1 / sqrt(pixels), so each of the three
    # diagonal entries is 64 places x 1 / (3 x 64).
    assert torch.allclose(found.gradients.diagonal(), torch.full((3,), 1 / 3).double(), atol=1e-6)


def test_channels_that_no_hook_sees_being_read_are_not_free() -> None:
    """The forward takes the tail's weight and calls a function: the gates price its channels."""

    class Functional(Redundant):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(self.head(x).relu(), self.tail.weight, padding=1)

    scores = score("dual_obs", calibration(Functional().eval()))["head"][0]
    assert (scores[1:] > 0).all()


class Attended(nn.Module):
    """torch's attention calls no hook of its projection; an inner layer reads a buffer."""

    scale = 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.inner, self.outer = nn.Linear(2, 6), nn.Linear(6, 8)
        self.register_buffer("where", torch.rand(1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.head(x)
        tokens = y.flatten(2).transpose(1, 2)
        tokens = tokens + self.outer(self.inner(self.where).relu())
        mixed = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.tail(y + mixed.transpose(1, 2).reshape(y.shape))


def test_what_attention_and_buffers_feed_is_not_free() -> None:
    data = calibration(Attended().eval())
    scores = score("dual_obs", data)
    assert len(scores) > 1
    for name, found in scores.items():
        assert found.max() > 0, name


def test_one_seed_one_score_also_for_pyramids_and_heads() -> None:
    for name in ("drn_tiny", "swinir_light"):
        model = build(name)
        if name == "swinir_light":
            model.layers = model.layers[:1]  # one of four stages is enough here
        torch.manual_seed(0)
        value_range = 255.0 if name == "drn_tiny" else 1.0
        lr, hr = torch.rand(2, 3, 16, 16) * value_range, torch.rand(2, 3, 64, 64) * value_range
        graph, dual = trace(model), DualModel(4)
        one, two = (
            score("dual_obs", Calibration(model, graph, [(lr, hr)], dual, patches=2))
            for _ in range(2)
        )
        assert all(np.array_equal(one[group], two[group]) for group in one)
        assert all((scores >= 0).all() and np.isfinite(scores).all() for scores in one.values())


def test_images_that_are_not_finite_are_named() -> None:
    model = Redundant().eval()
    with torch.no_grad():
        model.tail.bias[0] = float("nan")
    with pytest.raises(TrainingError, match="not finite on the calibration data"):
        score("dual_obs", calibration(model))

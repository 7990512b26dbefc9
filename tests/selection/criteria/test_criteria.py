"""Criteria, checked against small cases worked by hand and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.networks import Depthwise, Residual, Shuffled
from torch import nn

from drc.core.errors import UsageError
from drc.graph.trace import trace
from drc.networks.dual import DualModel
from drc.networks.registry import build
from drc.selection.calibration import Calibration
from drc.selection.criteria import base
from drc.selection.criteria.base import Criterion, keep_best, list_criteria, score
from drc.selection.gates import gate_gradients
from drc.training.losses import dual_regression_loss


class TwoChannels(nn.Module):
    """1x1 convolutions without biases: SR = v0 * w0 * x0 + v1 * w1 * x0 in the first channel."""

    scale = 1

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1, bias=False)
        self.tail = nn.Conv2d(2, 3, 1, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[:, 0, 0, 0] = torch.tensor([1.0, 3.0])
            self.tail.weight.zero_()
            self.tail.weight[0, :, 0, 0] = torch.tensor([2.0, 0.5])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.head(x))


def calibration(model: nn.Module, batches: list, **options) -> Calibration:
    example = batches[0][0] if batches else None
    return Calibration(model, trace(model, example), batches, patches=len(batches), **options)


def test_dual_taylor_by_hand() -> None:
    """SR is 3.5 in the first channel of x = 1. The L1 loss has slope 1/3 there, above the truth,
    so the gates' gradients are 2/3 and 1.5/3 on every crop; the scores are their squares."""
    lr = torch.ones(1, 3, 4, 4)
    scores = score("dual_taylor", calibration(TwoChannels().eval(), [(lr, 0 * lr)] * 2))
    assert scores["head"][0] == pytest.approx([(2 / 3) ** 2, (1.5 / 3) ** 2])


def test_l1_by_hand() -> None:
    scores = score("l1", calibration(TwoChannels().eval(), []))
    assert scores["head"][0] == pytest.approx([1 / 3, 3 / 3])


@pytest.mark.parametrize("network", [Residual, Shuffled, Depthwise])
def test_gate_gradients_equal_finite_differences(network: type[nn.Module]) -> None:
    """Scale an atom by 1 + e wherever it is read, and watch the loss."""
    model = network().eval().double()
    upscale = 2 if network in (Shuffled, Depthwise) else 1
    lr = torch.rand(1, 3, 6, 6, dtype=torch.float64)
    hr = torch.rand(1, 3, 6 * upscale, 6 * upscale, dtype=torch.float64)
    dual = DualModel(2).double() if upscale == 2 else None
    data = calibration(model, [(lr, hr)], dual=dual)
    found = next(gate_gradients(data))
    parameters = dict(model.named_parameters())

    def loss() -> float:
        with torch.no_grad():
            return dual_regression_loss(model(lr), lr, hr, dual, 1.0).item()

    step = 1e-6
    for group, gradient in zip(data.graph.groups, found, strict=True):
        assert gradient.shape == (group.blocks, group.size) and group.blocks == 1
        for atom in (0, group.size - 1):
            sides = []
            for factor in (1 + step, 1 - step):
                saved = {part.tensor: parameters[part.tensor].data.clone() for part in group.slices}
                for part in group.slices:
                    if part.read:
                        index = torch.tensor(part.indices[atom])
                        weight = parameters[part.tensor].data
                        weight.index_copy_(
                            part.dim, index, weight.index_select(part.dim, index) * factor
                        )
                sides.append(loss())
                for name, value in saved.items():
                    parameters[name].data = value
            assert gradient[0, atom] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-7)


def test_the_dual_term_counts() -> None:
    model = build("drn_tiny")
    lr, hr = 255 * torch.rand(1, 3, 8, 8), 255 * torch.rand(1, 3, 32, 32)
    plain = score("dual_taylor", calibration(model, [(lr, hr)]))
    with_dual = score("dual_taylor", calibration(model, [(lr, hr)], dual=DualModel(4)))
    assert any(not np.allclose(plain[name], with_dual[name]) for name in plain)


@pytest.mark.parametrize("name", list_criteria())
def test_scores_cover_every_atom_and_repeat(name: str) -> None:
    model = Residual().eval()
    batch = (torch.rand(1, 3, 6, 6), torch.rand(1, 3, 6, 6))
    data = [calibration(model, [batch], seed=4) for _ in range(2)]
    first, second = (score(name, d) for d in data)
    for group in data[0].graph.groups:
        assert first[group.name].shape == (group.blocks, group.size)
        assert np.array_equal(first[group.name], second[group.name])
    assert model.head.weight.requires_grad and model.head.weight.grad is None


def test_an_unknown_criterion_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean dual_taylor"):
        score("dual_tailor", calibration(Residual().eval(), []))


def test_scores_of_a_wrong_shape_are_refused_each_time() -> None:
    data = calibration(Residual().eval(), [(torch.rand(1, 3, 6, 6),) * 2])
    criterion = Criterion(lambda c, _: {g.name: np.ones(1) for g in c.graph.groups})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "get_criterion", lambda _: criterion)
        for _ in range(2):
            with pytest.raises(UsageError, match=r"flat gives scores of shape \(1,\) for group"):
                score("flat", data)


def test_keep_best_is_sorted_and_stable() -> None:
    scores = {"a": np.asarray([[1.0, 5.0, 5.0, 0.0], [3.0, 1.0, 2.0, 4.0]])}
    assert keep_best(scores, {"a": 2}) == {"a": [[1, 2], [0, 3]]}
    assert keep_best(scores, {"a": 3}) == {"a": [[0, 1, 2], [0, 2, 3]]}

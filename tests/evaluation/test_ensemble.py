"""Geometric self-ensemble: eight views, each turned back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import drc
from drc.data.bundled import bundled_pairs
from drc.data.folders import load_pair
from drc.data.matlab import upscale
from drc.evaluation.inference import self_ensemble


@pytest.fixture
def network() -> nn.Module:
    """A small SR network at x2 on random weights, which prefer directions."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2)
    ).requires_grad_(False)


def turned(image: Tensor, quarters: int, mirrored: bool) -> Tensor:
    image = torch.rot90(image, quarters, (-2, -1))
    return image.flip(-1) if mirrored else image


def turned_back(image: Tensor, quarters: int, mirrored: bool) -> Tensor:
    image = image.flip(-1) if mirrored else image
    return torch.rot90(image, -quarters, (-2, -1))


def test_is_the_mean_over_rotations_and_reflections(network: nn.Module) -> None:
    lr = torch.rand(2, 3, 9, 14)
    views = [(quarters, mirrored) for quarters in range(4) for mirrored in (False, True)]
    outputs = [turned_back(network(turned(lr, *view)), *view) for view in views]
    assert len({np.round(output.sum().item(), 3) for output in outputs}) == 8
    averaged = self_ensemble(network, lr)
    torch.testing.assert_close(averaged, torch.stack(outputs).mean(0), atol=1e-6, rtol=0)


def test_sees_eight_different_views_once_each() -> None:
    lr, seen = torch.rand(1, 3, 5, 7), []
    self_ensemble(lambda x: seen.append(x) or x, lr)
    assert [tuple(view.shape[-2:]) for view in seen] == [(5, 7)] * 4 + [(7, 5)] * 4
    assert len({view.contiguous().numpy().tobytes() for view in seen}) == 8


def test_what_has_no_direction_stays_as_it_is() -> None:
    lr = torch.rand(1, 3, 10, 6)
    torch.testing.assert_close(self_ensemble(lambda x: x, lr), lr)
    torch.testing.assert_close(
        self_ensemble(lambda x: upscale(x, 4), lr), upscale(lr, 4), atol=1e-5, rtol=0
    )


def test_undoes_a_preferred_direction(network: nn.Module) -> None:
    """A network that shifts its image comes out unshifted: the ensemble turns with the image."""

    def shifted(image: Tensor) -> Tensor:
        return F.pad(image, (1, 0))[..., :-1]

    lr = torch.rand(1, 3, 12, 12)
    for run in (network, shifted):
        for view in ((1, False), (3, True), (2, False)):
            of_view = self_ensemble(run, turned(lr, *view))
            torch.testing.assert_close(
                turned_back(of_view, *view), self_ensemble(run, lr), atol=1e-6, rtol=0
            )


def test_evaluate_gains_on_a_trained_network() -> None:
    model = drc.create_model("drn_tiny", scale=4, weights="default")
    lr, hr = (image / 255 for image in load_pair(bundled_pairs("test")[0], 4))
    piece = [(lr[:, 20:52, 30:78], hr[:, 80:208, 120:312])]
    once = drc.evaluate(model, piece, device="cpu")
    averaged = drc.evaluate(model, piece, device="cpu", self_ensemble=True)
    assert once.psnr < averaged.psnr < once.psnr + 0.5
    assert averaged.data == "1 images passed in, self-ensemble of 8 views"

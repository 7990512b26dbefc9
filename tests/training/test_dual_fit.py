"""Fitting a dual model on real photos."""

from __future__ import annotations

import pytest
import torch

from drc.core.errors import UsageError
from drc.data.batches import BatchReader
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.data.matlab import downscale
from drc.networks.dual import DualModel
from drc.training.dual_fit import fit_dual

pytestmark = pytest.mark.usefixtures("one_thread")


def reader(scale: int, split: str = "train", value_range: float = 255.0) -> BatchReader:
    pairs = bundled_pairs(split)
    loader = crop_loader(pairs, scale, patch=24, batch=8, steps=2, seed=5)
    return BatchReader(loader, scale, value_range, "cpu")


@pytest.mark.parametrize(("scale", "limit"), [(2, 1.5), (3, 4.0), (4, 1.5), (8, 2.5)])
def test_the_fit_shrinks_photos_it_has_not_seen(scale: int, limit: float) -> None:
    dual = fit_dual(reader(scale), scale, 255.0, steps=10, device="cpu")
    lr, hr = next(iter(reader(scale, "test")))
    (image,) = dual(hr)
    assert image.shape == lr.shape
    error = (image - lr).abs().mean()
    plain = (hr[..., ::scale, ::scale] - lr).abs().mean()
    # Limits in levels of 255; an untrained dual model is off by about 100.
    assert error < limit and error < 0.5 * plain


def test_each_step_of_a_pyramid_is_fitted() -> None:
    dual = fit_dual(reader(4), 4, 255.0, steps=10, device="cpu")
    lr, hr = next(iter(reader(4, "test")))
    middle = downscale(hr, 2)
    images = dual([lr, middle, hr])
    assert [tuple(x.shape[-2:]) for x in images] == [(24, 24), (48, 48)]
    assert (images[0] - lr).abs().mean() < 1.0
    assert (images[1] - middle).abs().mean() < 1.0


@pytest.mark.parametrize("scale", [3, 4])
def test_training_lowers_the_loss(scale: int) -> None:
    losses: list[float] = []
    fit_dual(
        reader(scale),
        scale,
        255.0,
        steps=40,
        device="cpu",
        progress=lambda what, done, total, values: losses.append(values["loss"]),
    )
    assert len(losses) == 40
    assert sum(losses[-2:]) < sum(losses[:2])  # the loader has two batches


def test_one_seed_gives_one_result_and_spares_the_callers_generators() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fit_dual(reader(4), 4, 255.0, steps=4, seed=3, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(9)
    second = fit_dual(reader(4), 4, 255.0, steps=4, seed=3, device="cpu")
    assert all(map(torch.equal, first.parameters(), second.parameters()))


def test_it_works_in_a_range_of_one() -> None:
    dual = fit_dual(reader(2, value_range=1.0), 2, 1.0, steps=0, device="cpu")
    lr, hr = next(iter(reader(2, "test", value_range=1.0)))
    assert (dual(hr)[0] - lr).abs().mean() < 1.5 / 255


def test_the_result_is_a_frozen_dual_model_in_eval_mode() -> None:
    dual = fit_dual(reader(2), 2, 255.0, steps=1, device="cpu")
    assert isinstance(dual, DualModel) and not dual.training
    assert not any(p.requires_grad for p in dual.parameters())


def test_a_scale_without_dual_model_is_refused() -> None:
    with pytest.raises(UsageError, match="twos and threes, not 5"):
        fit_dual(reader(2), 5, 255.0, device="cpu")

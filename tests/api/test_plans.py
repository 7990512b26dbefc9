"""`drc.search` for several ratios: one look at the data, and the plans of single searches."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import conv
from torch import Tensor, nn

import drc
from drc.core.errors import BudgetError, UsageError
from drc.networks.dual import DualModel
from drc.networks.zoo.layers import Residual
from drc.store.plan import Plan


class Upscaler(nn.Module):
    """Doubles an image, through blocks of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.head = conv(3, 12)
        widths = (16, 10)
        self.body = nn.Sequential(
            *(Residual(conv(12, width), nn.ReLU(), conv(width, 12)) for width in widths)
        )
        self.tail = nn.Sequential(conv(12, 12), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.body(self.head(x)))


class CountingLoader:
    """One batch, and how often it was asked for."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        self.batch = tuple(torch.rand(4, 3, side, side, generator=generator) for side in (8, 16))
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return iter([self.batch])


def _search(loader, ratio, **options):
    options = {"round_to": 1, "min_width": 1, "patches": 4, "dual": DualModel(2), **options}
    dual = options.pop("dual")
    return drc.search(_model(), loader, ratio, settings=drc.SearchSettings(**options), dual=dual)


def _model() -> nn.Module:
    torch.manual_seed(1)
    return Upscaler().eval()


@pytest.mark.parametrize("strategy", ["allocate", "uniform"])
def test_plans_equal_those_of_single_searches(strategy: str) -> None:
    ratios = [0.5, 0.2, 0.35]
    plans = _search(CountingLoader(), ratios, strategy=strategy, dual=None, dual_steps=2)
    assert [plan.budget.ratio for plan in plans] == ratios
    for ratio, plan in zip(ratios, plans, strict=True):
        alone = _search(CountingLoader(), ratio, strategy=strategy, dual=None, dual_steps=2)
        assert isinstance(alone, Plan)
        assert plan == alone
        assert (plan.expected_loss is None) == (strategy == "uniform")


def test_the_data_are_looked_at_once() -> None:
    one, many = CountingLoader(), CountingLoader()
    _search(one, 0.3)
    assert len(_search(many, (0.1, 0.2, 0.3, 0.4, 0.5))) == 5
    assert many.passes == one.passes


def test_expected_losses_grow_with_the_ratio() -> None:
    losses = [plan.expected_loss for plan in _search(CountingLoader(), [0.1, 0.3, 0.5])]
    assert 0 < losses[0] < losses[1] < losses[2]


def test_a_list_of_one_is_a_list() -> None:
    (plan,) = _search(CountingLoader(), [0.3])
    assert plan == _search(CountingLoader(), 0.3)


def test_a_ratio_out_of_reach_is_told_and_the_others_stay() -> None:
    with pytest.warns(UserWarning, match=r"no plan removes 98\.0% of the parameters"):
        plans = _search(CountingLoader(), [0.98, 0.3])
    assert [plan.budget.ratio for plan in plans] == [0.3]


def test_none_within_reach() -> None:
    with pytest.raises(BudgetError, match=r"no plan removes 98\.0%"):
        _search(CountingLoader(), [0.99, 0.98])


@pytest.mark.parametrize("ratio", [[], [0.3, 1.0], ["much"]])
def test_ratios_that_cannot_be_used(ratio: list) -> None:
    with pytest.raises(UsageError):
        _search(CountingLoader(), ratio)


def test_compress_takes_one() -> None:
    with pytest.raises(UsageError, match=r"one ratio; drc\.search"):
        drc.compress(_model(), CountingLoader(), [0.3, 0.5], recovery=False, test=None)

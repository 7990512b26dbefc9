"""Batches of any accepted form, in the network's own range; the rest refused in one line."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from drc.core.errors import DataError
from drc.data.batches import BatchReader, unpack

SCALE = 2


def pair(top: float = 1.0) -> tuple[Tensor, Tensor]:
    """LR and HR that reach `top`."""
    lr, hr = torch.rand(2, 3, 4, 6) * top, torch.rand(2, 3, 8, 12) * top
    lr[0, 0, 0, 0] = hr[0, 0, 0, 0] = top
    return lr, hr


def reader(loader: object, value_range: float = 1.0, **kwargs) -> BatchReader:
    return BatchReader(loader, SCALE, value_range, "cpu", **kwargs)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda lr, hr: (lr, hr),
        lambda lr, hr: [lr, hr],
        lambda lr, hr: {"lr": lr, "hr": hr, "name": ["a", "b"]},
        lambda lr, hr: {"lq": lr, "gt": hr, "lq_path": "a"},
    ],
)
def test_every_form(wrap) -> None:
    lr, hr = pair()
    batch = wrap(lr, hr)
    assert unpack(batch, SCALE)[0] is lr
    assert unpack(batch)[1] is hr
    ((ours, truth),) = reader([batch])
    assert torch.equal(ours, lr)
    assert torch.equal(truth, hr)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(2, 3, 4, 6), "type Tensor is not usable; a batch is"),
        ((1, 2, 3), "a batch of 3 parts"),
        ({"image": 1, "label": 2}, r"the keys \['image', 'label'\]"),
        ({"lr": torch.zeros(1, 3, 4, 4), "gt": 1}, r"keys \['gt', 'lr'\]"),
        (
            (torch.zeros(3, 4, 6), torch.zeros(3, 8, 12)),
            r"lr must .*\(N, C, H, W\), not \(3, 4, 6\)",
        ),
        ((torch.zeros(1, 3, 4, 6), None), "hr must .* not NoneType"),
        ((torch.zeros(0, 3, 4, 6), torch.zeros(0, 3, 8, 12)), r"not \(0, 3, 4, 6\)"),
        ((torch.zeros(2, 3, 4, 6), torch.zeros(2, 3, 8, 11)), "are not a x2 pair"),
        ((torch.zeros(2, 3, 4, 6), torch.zeros(1, 3, 8, 12)), "are not a x2 pair"),
        ((torch.zeros(2, 3, 8, 12), torch.zeros(2, 3, 4, 6)), "are not a x2 pair"),
        ((torch.zeros(1, 3, 4, 6).long(), torch.zeros(1, 3, 8, 12)), "lr is torch.int64"),
    ],
)
def test_other_forms_are_refused_in_one_line(batch: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(reader([batch]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value_range", [1.0, 255.0])
@pytest.mark.parametrize("of_network", [False, True])
def test_both_ranges_become_the_networks(value_range: float, of_network: bool) -> None:
    top = value_range if of_network else 1.0
    lr, hr = pair(top)
    ((ours, truth),) = reader([(lr, hr)], value_range)
    assert torch.allclose(ours, lr * (value_range / top))
    assert truth.max() == value_range


@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_8_bit_tensors(value_range: float) -> None:
    lr = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    hr = torch.randint(0, 2, (1, 3, 8, 8), dtype=torch.uint8)  # dark: 8 bits are never 0..1
    for ours, truth in reader([(lr, hr)], value_range):
        assert torch.allclose(ours, lr.float() * (value_range / 255))
        assert torch.allclose(truth, hr.float() * (value_range / 255))


def test_range_is_decided_by_the_first_batch_as_a_whole() -> None:
    dark = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 8, 8), 3.0)
    batches = [dark, (torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 8, 8))]
    assert [hr.max().item() for _, hr in reader(batches, 255.0)] == [3.0, 1.0]
    with pytest.raises(DataError, match=r"hr reaches from 3 to 3, outside 0\.\.1;"):
        list(reader(batches[::-1], 255.0))


def test_declared_range() -> None:
    lr, hr = pair()
    ((_, truth),) = reader([(lr, hr)], 255.0, data_range=255.0)
    assert truth.max() == 1


@pytest.mark.parametrize(
    ("value_range", "top", "message"),
    [
        (1.0, 255.0, r"to 255, outside 0\.\.1; this network takes batches in 0\.\.1$"),
        (255.0, 300.0, r"to 300, outside 0\.\.255; .* batches in 0\.\.1 or 0\.\.255$"),
    ],
)
def test_values_outside_every_range(value_range: float, top: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(reader([pair(top)], value_range))


def test_negative_values() -> None:
    lr, hr = pair()
    with pytest.raises(DataError, match=r"lr reaches from -1 to"):
        list(reader([(lr * 0 - 1, hr)]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_nan_and_infinity(bad: float, which: int) -> None:
    images = pair()
    images[which][1, 2, 3, 4] = bad
    with pytest.raises(DataError, match=f"{('lr', 'hr')[which]} "):
        list(reader([images]))


def test_half_and_double_become_float32() -> None:
    lr, hr = pair()
    for ours, truth in reader([(lr.half(), hr.double())]):
        assert ours.dtype == truth.dtype == torch.float32


def test_iterates_again_and_takes() -> None:
    batches = [pair() for _ in range(4)]
    ours = reader(batches)
    assert len(list(ours)) == len(list(ours)) == 4
    assert len(list(ours.take(3))) == 3
    assert len(list(ours.take(9))) == 4
    assert torch.equal(next(iter(ours.take(1)))[0], batches[0][0])


def test_empty_and_spent_loaders() -> None:
    with pytest.raises(DataError, match="gave no batches"):
        list(reader([]))
    with pytest.raises(DataError, match="gave no batches"):
        list(reader([]).take(2))
    spent = reader(iter([pair()]))
    assert len(list(spent)) == 1
    with pytest.raises(DataError, match="can be iterated again"):
        list(spent)

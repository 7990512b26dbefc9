"""A sum whose bits depend on its terms alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drc.core.exact_sum import ExactSum

SIZES = st.floats(1e-200, 1e30)
NUMBERS = st.one_of(st.just(0.0), SIZES, SIZES.map(lambda number: -number))
TERMS = st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=24)


def total(terms: list[list[float]], most: int) -> torch.Tensor:
    found = ExactSum((3,), most)
    for term in terms:
        found.add(torch.tensor(term, dtype=torch.float64))
    return found.total()


@settings(deadline=None, max_examples=200)
@given(TERMS, st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bits(terms, random):
    shuffled = random.sample(terms, len(terms))
    assert torch.equal(total(terms, len(terms)), total(shuffled, len(terms)))


@settings(deadline=None, max_examples=200)
@given(TERMS)
def test_it_is_the_plain_sum_but_for_rounding(terms):
    found, exact = total(terms, len(terms)), [math.fsum(row) for row in zip(*terms, strict=True)]
    largest = sum(max(map(abs, term)) for term in terms)
    assert np.abs(found.numpy() - exact).max() <= 1e-11 * largest


@settings(deadline=None, max_examples=50)
@given(st.lists(TERMS, min_size=1, max_size=4))
def test_any_split_gives_the_same_bits(parts):
    """Parts that are added up level by level, as processes add up theirs."""
    terms = list(itertools.chain(*parts))
    sums = [ExactSum((3,), len(terms)) for _ in parts]
    for part, found in zip(parts, sums, strict=True):
        for term in part:
            found.add(torch.tensor(term, dtype=torch.float64))
    whole = ExactSum((3,), len(terms))
    for found in reversed(sums):
        for level, tensor in found._levels.items():
            there = whole._levels.get(level, torch.zeros(3, dtype=torch.float64))
            whole._levels[level] = there + tensor
    assert torch.equal(whole.total(), total(terms, len(terms)))


def test_nothing_and_nonsense():
    assert torch.equal(ExactSum((2, 2), 64).total(), torch.zeros(2, 2).double())
    assert torch.equal(total([[0.0, 0.0, 0.0]], 1), torch.zeros(3).double())
    found = total([[math.nan, 1.0, 1.0], [1.0, math.inf, 1.0]], 2)
    assert found.isnan().tolist()[0] and found[1] == math.inf and found[2] == 2.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float32_terms_of_like_size_lose_nothing(dtype):
    terms = torch.rand(64, 5, 5, generator=torch.Generator().manual_seed(0)) + 0.5
    found = ExactSum((5, 5), 64)
    for term in terms:
        found.add(term.to(dtype).clone())
    assert torch.equal(found.total(), terms.double().sum(0))

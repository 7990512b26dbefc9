"""Sums whose bits depend neither on the order of the terms nor on who adds which of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from drc.core.messages import add_up, exchange

_STEP = 6  # bits of magnitude that the terms of one level span
_EXACT = 51  # bits of a level's sum; float64 has two more, for the rounding
_LOWEST = -960  # below 2 to this, nothing counts
_ENDLESS = 2**30


class ExactSum:
    """The sum of float64 tensors of one shape, spread over the processes of a job.

    Every term is first rounded to a multiple of a quantum, a power of two that its own largest
    entry decides. Sums of multiples of one quantum are exact in float64 while they stay below
    2^53 quanta, so terms of like magnitude share a level, and the levels are added up at the end,
    always in the same order. The idea is that of reproducible summation by rounding beforehand
    (Demmel & Nguyen, ARITH 2013).

    With n terms, an entry of a term is off by at most n * 2^-45 of the term's largest entry.

    Args:
        shape: of the terms.
        terms: at most this many are added, over all processes; up to 2^30.
    """

    def __init__(self, shape: Sequence[int], terms: int) -> None:
        self._shape = tuple(shape)
        self._bits = _EXACT - max(0, terms - 1).bit_length()
        self._levels: dict[int, Tensor] = {}

    def add(self, term: Tensor) -> None:
        """Add a tensor with entries below 2^900; one of float64 on the CPU is overwritten."""
        low, high = (bound.item() for bound in torch.aminmax(term))
        largest = max(-low, high)
        if largest == 0:
            return
        term = term.to("cpu", torch.float64)
        level = _ENDLESS  # NaN and infinity stay what they are
        if math.isfinite(largest):
            level = max(-(-math.frexp(largest)[1] // _STEP), _LOWEST // _STEP)
            # Adding this leaves no bits below the quantum, which is its last one.
            shift = math.ldexp(1.5, 52 + level * _STEP - self._bits)
            term.add_(shift).sub_(shift)
        if level in self._levels:
            self._levels[level] += term
        else:
            self._levels[level] = term

    def total(self) -> Tensor:
        """The sum over all processes, which all have to ask for it, once."""
        total = torch.zeros(self._shape, dtype=torch.float64)
        known = {level for levels in exchange(list(self._levels)) for level in levels or []}
        for level in sorted(known):
            mine = self._levels.pop(level, None)
            total += add_up(torch.zeros_like(total) if mine is None else mine)
        return total


__all__ = ["ExactSum"]

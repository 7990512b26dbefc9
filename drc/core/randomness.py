"""The state of the random generators: kept apart, captured and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from drc.core.runtime import seed_everything

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class RandomState:
    """What Python, NumPy and torch would draw next, on the CPU and on one GPU.

    All of it are tensors and plain types, fit for `torch.load(weights_only=True)`.
    """

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    cpu: Tensor
    cuda: Tensor | None = None

    @classmethod
    def capture(cls, device: torch.device = _CPU) -> RandomState:
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        kind, keys, *rest = cast("tuple[Any, ...]", np.random.get_state())
        numpy = (kind, keys.tolist(), *rest)
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def restore(self, device: torch.device = _CPU) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, device)


@contextmanager
def isolated(seed: int, device: torch.device = _CPU) -> Iterator[None]:
    """Seed all generators for a block and give the caller its own states back afterwards."""
    outer = RandomState.capture(device)
    seed_everything(seed)
    try:
        yield
    finally:
        outer.restore(device)


class RandomStream:
    """A private course of the global CPU generators, followed inside `with stream.active():`.

    Reading data draws from it, so that what a loader draws does not depend on how often the
    training drew, nor the other way round.
    """

    def __init__(self, seed: int) -> None:
        with isolated(seed):
            self.state = RandomState.capture()

    @contextmanager
    def active(self) -> Iterator[None]:
        outer = RandomState.capture()
        self.state.restore()
        try:
            yield
        finally:
            self.state = RandomState.capture()
            outer.restore()

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
    """What Python, NumPy and torch would draw next, on the CPU and on one GPU."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    cpu: Tensor
    cuda: Tensor | None = None

    @classmethod
    def capture(cls, device: torch.device = _CPU) -> RandomState:
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        numpy = cast("tuple[Any, ...]", np.random.get_state())
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def restore(self, device: torch.device = _CPU) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, device)

    def to_plain(self) -> dict[str, Any]:
        """Tensors and plain types only, fit for `torch.load(weights_only=True)`."""
        kind, keys, *rest = self.numpy
        numpy = [kind, torch.from_numpy(keys.astype(np.int64)), *rest]
        return {"python": self.python, "numpy": numpy, "cpu": self.cpu, "cuda": self.cuda}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> RandomState:
        kind, keys, *rest = plain["numpy"]
        numpy = (kind, keys.numpy().astype(np.uint32), *rest)
        return cls(plain["python"], numpy, plain["cpu"], plain["cuda"])


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


__all__ = ["RandomState", "RandomStream", "isolated"]

"""The best weights of a run, by what is measured on held-out images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Measure = Callable[[nn.Module], float]
"""A network in eval mode -> how good it is; higher is better."""


class Best:
    """The best weights so far.

    Attributes:
        value: what they measured; minus infinity before the first measurement.
        step: when.
        tensors: their state dict.
    """

    def __init__(self) -> None:
        self.value, self.step = -math.inf, 0
        self.tensors: dict[str, Tensor] | None = None

    def offer(self, value: float, step: int, tensors: dict[str, Tensor]) -> None:
        """Keep a copy of `tensors` if they are better."""
        if value > self.value:
            self.value, self.step = value, step
            self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "step": self.step, "tensors": self.tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.step = float(state["value"]), int(state["step"])
        self.tensors = state["tensors"]


__all__ = ["Best", "Measure"]

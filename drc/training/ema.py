"""Exponential moving average of a network's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """Averages the trainable parameters of a network; takes all else as it currently is.

    The decay grows with the number of updates, `min(decay, (1 + n) / (10 + n))`, so that the
    average forgets the starting weights within a short run.

    Args:
        model: the network to follow; the average starts at its weights and on its device.
        decay: the largest decay, in 0..1; at 0 the average is the network itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.tensors = {name: x.detach().clone() for name, x in model.state_dict().items()}
        named = model.named_parameters(remove_duplicate=False)
        self._averaged = {name for name, parameter in named if parameter.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the current weights of the network given at the start."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        slow: list[Tensor] = []
        fast: list[Tensor] = []
        for name, tensor in model.state_dict().items():
            if name in self._averaged:
                slow.append(self.tensors[name])
                fast.append(tensor)
            else:
                self.tensors[name].copy_(tensor)
        get_ema_multi_avg_fn(decay)(slow, fast, 0)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the averaged weights into `model`, keeping its device, type and memory format."""
        for name, tensor in model.state_dict().items():
            tensor.copy_(self.tensors[name])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "tensors": self.tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = int(state["updates"])
        for name, tensor in self.tensors.items():
            tensor.copy_(state["tensors"][name])


__all__ = ["Ema"]

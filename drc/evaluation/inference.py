"""Borrow a network for measuring, and give it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from drc.runtime import eval_mode


@contextmanager
def borrowed(model: nn.Module, device: torch.device | None = None) -> Iterator[nn.Module]:
    """Within the block `model` is in eval mode, without gradients, and on `device` if given.

    Afterwards each of its modules has its own mode again, and the network its device.
    """
    tensor = next(model.parameters(), None)
    home = tensor.device if tensor is not None else None
    try:
        if device is not None:
            model.to(device)
        with eval_mode(model), torch.no_grad():
            yield model
    finally:
        if device is not None and home is not None:
            model.to(home)


__all__ = ["borrowed"]

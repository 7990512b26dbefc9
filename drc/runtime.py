"""Devices, seeds and progress: what every step of the work shares."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from drc.errors import UsageError

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called as `progress(what, done, total, metrics)`; None in its place means silence."""


def resolve_device(spec: str | torch.device = "auto") -> torch.device:
    """Turn `auto`, `cpu` or `cuda:N` into a device that exists.

    Raises:
        UsageError: not a device, or one this machine does not have.
    """
    if spec == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(spec)
    except RuntimeError:
        raise UsageError(f"{spec!r} is not a device; use auto, cpu or cuda:N") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UsageError(f"device {spec} does not exist here ({count} GPUs); use cpu or auto")
    return device


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block `model` is in eval mode; afterwards each module has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, training in modes.items():
            module.training = training

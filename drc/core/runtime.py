"""Devices, seeds and progress: what every step of the work shares."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from drc.core.errors import UsageError

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


@contextmanager
def forward_hooks(
    modules: Mapping[str, nn.Module], hook: Callable[[str, tuple[Any, ...], Any], None]
) -> Iterator[None]:
    """Within the block, `hook(name, inputs, output)` is called after each module's forward."""
    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(
                lambda _, inputs, output, name=name: hook(name, inputs, output)
            )
            stack.callback(handle.remove)
        yield

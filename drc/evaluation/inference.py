"""Borrow a network for measuring, and give it back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from drc.models.traits import possible_channels
from drc.runtime import eval_mode

Outcome = TypeVar("Outcome")


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


def on_image(
    model: nn.Module,
    lr_size: tuple[int, int],
    device: torch.device,
    work: Callable[[Tensor], Outcome],
) -> Outcome:
    """Call `work` with an image for `model`, `(1, C, h, w)` in 0..1, and return what it returns.

    C is known from the network's traits, or else the first of 3, 1, 4, ... on which `work`, which
    runs the network, succeeds.

    Raises:
        Exception: what `work` raised for the likeliest number of channels.
    """
    generator = torch.Generator().manual_seed(0)
    failures: list[Exception] = []
    for channels in possible_channels(model):
        lr = torch.rand(1, channels, *lr_size, generator=generator).to(device)
        try:
            return work(lr)
        except Exception as error:  # a foreign forward raises what it likes
            failures.append(error)
    raise failures[0]


__all__ = ["borrowed", "on_image"]

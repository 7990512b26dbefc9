"""Run a network on images for measuring: borrow it, and choose how it sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from drc.core.probe import NothingTakenError, first_taken, noise
from drc.core.runtime import eval_mode
from drc.evaluation.ensemble import self_ensemble
from drc.evaluation.tiling import MULTIPLE, check_tile, upscale_tiled
from drc.networks.traits import final_output, possible_channels
from drc.settings.runs import TILE_OVERLAP

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Inference:
    """How whole images go through a network.

    Attributes:
        self_ensemble: average the eight flips and turns of every image.
        tile: largest LR side that goes through at once; 0 for whole images.
        overlap: LR pixels of a tile that are dropped at every cut edge.
        multiple: tiles start at multiples of this many LR pixels.

    Raises:
        UsageError: a tile too small for the overlap.
    """

    self_ensemble: bool = False
    tile: int = 0
    overlap: int = TILE_OVERLAP
    multiple: int = MULTIPLE

    def __post_init__(self) -> None:
        if self.tile:
            check_tile(self.tile, self.overlap, self.multiple)

    def run(self, model: Callable[[Tensor], Any], lr: Tensor, scale: int) -> Tensor:
        """The SR images `(N, C, h * scale, w * scale)` of `lr`, `(N, C, h, w)` in the network's
        range; of a pyramid the last."""

        def once(images: Tensor) -> Tensor:
            return final_output(model(images))

        def view(images: Tensor) -> Tensor:
            if not self.tile:
                return once(images)
            return upscale_tiled(once, images, scale, self.tile, self.overlap, self.multiple)

        return self_ensemble(view, lr) if self.self_ensemble else view(lr)

    def arguments(self) -> dict[str, Any]:
        """What `drc.evaluate` takes of it."""
        return {"self_ensemble": self.self_ensemble, "tile": self.tile, "overlap": self.overlap}

    def in_words(self) -> str:
        """What a reader of the figures must know, after a comma; empty for whole images alone."""
        words = ", self-ensemble of 8 views" if self.self_ensemble else ""
        return words + (
            f", in tiles of {self.tile} with an overlap of {self.overlap}" if self.tile else ""
        )


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
    shapes = ((channels, *lr_size) for channels in possible_channels(model))
    try:
        return first_taken(noise(shapes, torch.empty(0, device=device)), work)[1]
    except NothingTakenError as refused:
        raise refused.failures[0][1] from None


__all__ = ["Inference", "borrowed", "on_image"]

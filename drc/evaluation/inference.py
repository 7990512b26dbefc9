"""Run a network on images for measuring: whole, in tiles, or as the mean of eight views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from drc.core.errors import ModelError, UsageError
from drc.core.probe import NothingTakenError, first_taken, noise
from drc.core.runtime import eval_mode
from drc.networks.traits import final_output, possible_channels
from drc.settings.report import TILE_OVERLAP

Outcome = TypeVar("Outcome")

MULTIPLE = 32
"""Where tiles start: a multiple of the windows in use, 8 (SwinIR), 16 (HAT) and 8x32 (DAT)."""


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


def self_ensemble(run: Callable[[Tensor], Tensor], lr: Tensor) -> Tensor:
    """Run all flips and quarter turns of an image, turn the SR images back, and average them.

    Eight times the work; trained networks, whose weights prefer directions, gain a little.

    Args:
        run: maps `(N, C, h, w)` to SR images, h and w in either order.
        lr: `(N, C, h, w)`.

    Returns:
        The mean, in the shape of `run(lr)`.
    """

    def views() -> Iterator[Tensor]:
        for transposed, flips in product((False, True), ((), (-1,), (-2,), (-1, -2))):
            view = (lr.transpose(-1, -2) if transposed else lr).flip(flips)
            sr = run(view).flip(flips)
            yield sr.transpose(-1, -2) if transposed else sr

    return reduce(torch.add, views()) / 8  # one by one: eight SR images may not fit into memory


@dataclass(frozen=True)
class Span:
    """A tile along one side of the image, in LR pixels.

    Attributes:
        start, stop: what the network sees.
        first, last: the part of it that is kept, as positions in the image.
    """

    start: int
    stop: int
    first: int
    last: int

    def kept(self, scale: int, origin: int = 0) -> slice:
        """The kept part in SR pixels, counted from the LR position `origin`."""
        return slice((self.first - origin) * scale, (self.last - origin) * scale)


def upscale_tiled(
    run: Callable[[Tensor], Tensor],
    lr: Tensor,
    scale: int,
    tile: int,
    overlap: int = TILE_OVERLAP,
    multiple: int = MULTIPLE,
) -> Tensor:
    """Super-resolve an image tile by tile.

    Tiles overlap, and of each only what lies at least `overlap` LR pixels from a cut edge is
    kept; edges of the image itself are no cuts. The network's memory is that for one tile, and
    the SR image is held once.

    The result is that of the whole image, up to rounding, where an SR pixel depends on no LR
    pixel farther away than `overlap`: for convolutions, up to half their joint kernel sizes. It is
    not where a network

    - looks at the whole image: the means of channel attention (RCAN, DRN), instance norm, a blur
      kernel that is estimated from the image (DCLS). Tiles then have statistics of their own;
    - looks farther than `overlap`: deep networks weakly do, window attention reaches one window
      farther per layer;
    - divides the image into windows (SwinIR, DAT), unless tiles start where windows do: starts
      are multiples of `multiple`, which must be one of the window's side.

    Args:
        run: maps `(N, C, h, w)` to `(N, C, h * scale, w * scale)`.
        lr: `(N, C, h, w)`, on the device on which the SR image is to be put together.
        scale: HR side over LR side.
        tile: largest side of a tile in LR pixels, overlaps included.
        overlap: LR pixels dropped at every cut edge.
        multiple: tiles start at multiples of this many LR pixels.

    Returns:
        `(N, C, h * scale, w * scale)`.

    Raises:
        UsageError: a tile without room for the overlaps and one step of `multiple`.
        ModelError: `run` gives another size.
    """
    check_tile(tile, overlap, multiple)
    height, width = lr.shape[-2:]
    if max(height, width) <= tile:
        return run(lr)
    sr: Tensor | None = None
    for rows, columns in product(
        spans(height, tile, overlap, multiple), spans(width, tile, overlap, multiple)
    ):
        part = lr[..., rows.start : rows.stop, columns.start : columns.stop]
        done = run(part.contiguous())
        expected = tuple(side * scale for side in part.shape[-2:])
        if tuple(done.shape[-2:]) != expected:
            raise ModelError(
                f"the network turned a tile of {part.shape[-2]}x{part.shape[-1]} into "
                f"{done.shape[-2]}x{done.shape[-1]}, not {expected[0]}x{expected[1]}"
            )
        if sr is None:
            sr = lr.new_empty((*done.shape[:-2], height * scale, width * scale), dtype=done.dtype)
        inner = done[..., rows.kept(scale, rows.start), columns.kept(scale, columns.start)]
        sr[..., rows.kept(scale), columns.kept(scale)] = inner
    assert sr is not None
    return sr


def check_tile(tile: int, overlap: int = TILE_OVERLAP, multiple: int = MULTIPLE) -> None:
    """Raise UsageError for a tile without room for its overlaps and one step between tiles."""
    if overlap < 0 or multiple < 1:
        raise UsageError(f"overlap {overlap} and multiple {multiple} must be at least 0 and 1")
    smallest = 2 * overlap + multiple
    if tile < smallest:
        raise UsageError(
            f"a tile of {tile} has no room for an overlap of {overlap} to each side and a step of "
            f"{multiple}; use one of at least {smallest}"
        )


def spans(length: int, tile: int, overlap: int, multiple: int) -> Iterator[Span]:
    """The tiles along a side of `length` LR pixels; their kept parts cover it without a gap."""
    step = (tile - 2 * overlap) // multiple * multiple
    final = max(-(-(length - tile) // multiple) * multiple, 0)
    starts = [*range(0, final, step), final]
    first = 0
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        stop = length if following is None else start + tile
        # In the middle of what two tiles share, as far from both cuts as can be.
        last = length if following is None else (following + stop) // 2
        yield Span(start, stop, first, last)
        first = last

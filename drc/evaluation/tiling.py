"""Large images in overlapping tiles: memory for one tile at a time, and no seams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from torch import Tensor

from drc.core.errors import ModelError, UsageError
from drc.settings.runs import TILE_OVERLAP

MULTIPLE = 32
"""Where tiles start: a multiple of the windows in use, 8 (SwinIR), 16 (HAT) and 8x32 (DAT)."""


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


__all__ = ["MULTIPLE", "Span", "check_tile", "spans", "upscale_tiled"]

"""Photos through a network: colours, alpha, tiles chosen by size, and what memory holds."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor

from drc.core.errors import DataError, UsageError
from drc.data.matlab import from_luma, luma
from drc.data.matlab import upscale as bicubic
from drc.data.photo import Levels, Photo
from drc.evaluation.inference import MULTIPLE, Inference, spans
from drc.settings.report import TILE_OVERLAP
from drc.upscaling.network import TooLargeError, Upscaler

WHOLE = 512 * 512
"""LR pixels up to which images go through whole by default: 4 GB for DRN-S on a CPU."""

AUTO_TILE = 384
"""Side of the tiles of larger ones, in LR pixels: 2 GB."""

_VIEWS = 8
_SHOWN = 1 << 30


@dataclass
class Enlarger:
    """Enlarges photos by a network.

    Attributes:
        upscaler: the network.
        tile: largest LR side that goes through at once; 0 for whole images, None to choose.
        overlap: LR pixels of a tile that are dropped at every cut edge.
        self_ensemble: average the eight flips and turns of every image.
        log: takes a sentence now and then.
        on_pass: called after every pass of the network with the passes done and those needed.

    Raises:
        UsageError: a tile too small for the overlap, or not the one that the network takes.
    """

    upscaler: Upscaler
    tile: int | None = None
    overlap: int = TILE_OVERLAP
    self_ensemble: bool = False
    log: Callable[[str], None] | None = None
    on_pass: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        side = self.upscaler.side
        if side and self.tile not in (None, side):
            raise UsageError(f"{self.upscaler.name} takes tiles of {side} alone; leave --tile out")
        self._largest = 0  # the longest tile that memory holds, once it was too small for one
        Inference(False, self.tile or 0, self.overlap, self._multiple)  # refuses what does not fit

    def __call__(self, photo: Photo, name: str = "image") -> Photo:
        """The enlarged photo, in as many bits, grey if it was grey, with its alpha enlarged too.

        RGB goes through a network of three channels as it is, and grey as equal channels of which
        the luma is kept. A network of one channel gets the luma, as in `drc.evaluate`, and colours
        are enlarged bicubically. So is alpha.

        Raises:
            DataError: the result would not fit into memory.
            ModelError: the network fails, or no tile is small enough for its memory.
        """
        scale, grey = self.upscaler.scale, photo.levels.shape[2] == 1
        self._check_memory(photo, name)
        lr = to_tensor(photo.levels)
        sr = self._network(_for(self.upscaler.channels, lr), name)
        levels = to_levels(_colours(sr, lr, grey, scale), photo.white)
        alpha = None if photo.alpha is None else _enlarge_alpha(photo.alpha, scale, photo.white)
        return replace(photo, levels=levels, alpha=alpha)

    def tensor(self, images: Tensor, name: str = "image") -> Tensor:
        """Enlarge `(N, C, h, w)`, 0..1, one by one, as a tensor of 0..1; C is the network's."""
        return torch.cat([self._network(image, name).clamp_(0, 1) for image in images.split(1)])

    def inference(self, height: int, width: int) -> Inference:
        """How an image of a size goes through."""
        tile = self.upscaler.side or self.tile
        if tile is None:
            tile = 0 if height * width <= WHOLE else max(AUTO_TILE, self._smallest)
            if self._largest and max(height, width) > self._largest:
                tile = self._largest
        return Inference(self.self_ensemble, tile, self._overlap, self._multiple)

    @property
    def tile_in_words(self) -> int | str:
        """The tile, or `auto`."""
        tile = self.upscaler.side or self.tile
        return "auto" if tile is None else tile

    @property
    def _multiple(self) -> int:
        return 1 if self.upscaler.side else math.lcm(MULTIPLE, self.upscaler.multiple)

    @property
    def _overlap(self) -> int:
        side = self.upscaler.side
        return min(self.overlap, side // 4) if side else self.overlap

    @property
    def _smallest(self) -> int:
        return 2 * self.overlap + self._multiple

    def _network(self, lr: Tensor, name: str) -> Tensor:
        """The SR image; where tiles are ours to choose, in as small ones as memory asks for."""
        height, width = lr.shape[-2:]
        while True:
            how = self.inference(height, width)
            try:
                return self.upscaler.run(lr, how, self._counter(how, height, width))
            except TooLargeError as error:
                smaller = self._smaller(how, max(height, width))
                if self.tile is not None or self.upscaler.side or not smaller:
                    advice = (
                        f"use --tile {smaller}" if smaller else "use --device cpu or --amp bf16"
                    )
                    raise TooLargeError(f"{name}: {error}; {advice}") from None
                self._largest = smaller
            gc.collect()
            clear_device_cache()
            self._say(f"{name}: out of memory; tiles of {smaller} from now on")

    def _smaller(self, how: Inference, longest: int) -> int:
        """Half the tile that was too large, in steps of 32 or so; 0 where there is none."""
        half = min(how.tile or longest, longest) // 2 // self._multiple * self._multiple
        failed = min(how.tile or longest, longest)
        return max(half, self._smallest) if failed > self._smallest else 0

    def _counter(self, how: Inference, height: int, width: int) -> Callable[[], None] | None:
        report = self.on_pass
        if report is None:
            return None
        total, done = passes(how, height, width), 0

        def count() -> None:
            nonlocal done
            done += 1
            report(done, total)

        return count

    def _check_memory(self, photo: Photo, name: str) -> None:
        (height, width), scale = photo.size, self.upscaler.scale
        needed = self._bytes(photo)
        free = int(psutil.virtual_memory().available)
        size = (
            f"x{scale} makes it {width * scale}x{height * scale}, which takes about {_gb(needed)}"
        )
        if needed > free:
            raise DataError(f"{name}: {size} of memory, and {_gb(free)} are free; split the image")
        tile = self.inference(height, width).tile
        if self.tile is None and tile and not self.upscaler.side and max(height, width) > tile:
            self._say(f"{name}: {width}x{height} goes through in tiles of {tile}; {size}")
        elif needed > _SHOWN:
            self._say(f"{name}: {size}")

    def _bytes(self, photo: Photo) -> int:
        """What the images take besides the network, at their most."""
        pixels = photo.levels.shape[0] * photo.levels.shape[1]
        floats = 4 * self.upscaler.channels * (4 if self.self_ensemble else 1)
        grey, one = photo.levels.shape[2] == 1, self.upscaler.channels == 1
        colours = 8 if grey and not one else 20 if one and not grey else 0  # luma, and bicubic
        planes = photo.levels.shape[2] + (photo.alpha is not None)
        levels = 2 * planes * photo.levels.itemsize  # as an array, and as the file's bytes
        return pixels * self.upscaler.scale**2 * (floats + colours + levels)

    def _say(self, text: str) -> None:
        if self.log is not None:
            self.log(text)


def passes(how: Inference, height: int, width: int) -> int:
    """How often the network runs for an image of a size."""
    views = _VIEWS if how.self_ensemble else 1
    if not how.tile or max(height, width) <= how.tile:
        return views
    rows, columns = (
        len(list(spans(side, how.tile, how.overlap, how.multiple))) for side in (height, width)
    )
    return views * rows * columns


def to_tensor(levels: Levels) -> Tensor:
    """Levels `(H, W, C)` as `(1, C, H, W)`, 0..1."""
    white = float(np.iinfo(levels.dtype).max)
    return torch.from_numpy(levels.transpose(2, 0, 1).astype(np.float32))[None] / white


def to_levels(image: Tensor, white: int) -> Levels:
    """`(1, C, H, W)`, 0..1, as levels `(H, W, C)`, rounded and clamped; `image` is written over."""
    rounded = image[0].mul_(float(white)).round_().clamp_(0, white)
    kind = np.uint8 if white == 255 else np.uint16
    return rounded.permute(1, 2, 0).numpy().astype(kind, order="C")


def _for(channels: int, lr: Tensor) -> Tensor:
    """What the network sees of grey or RGB."""
    rgb = lr if lr.shape[1] == 3 else lr.expand(-1, 3, -1, -1).contiguous()
    return rgb if channels == 3 else luma(rgb, 1.0)


def _colours(sr: Tensor, lr: Tensor, grey: bool, scale: int) -> Tensor:
    """What the network gave, in the colours of `lr`: `(1, 1 or 3, H, W)`."""
    if grey:
        return from_luma(sr if sr.shape[1] == 1 else luma(sr, 1.0))
    if sr.shape[1] == 3:
        return sr
    enlarged = bicubic(lr, scale)
    # Adding the same to red, green and blue changes luma alone.
    return enlarged.add_(from_luma(sr) - from_luma(luma(enlarged, 1.0)))


def _enlarge_alpha(alpha: Levels, scale: int, white: int) -> Levels:
    if alpha.min() == alpha.max():
        return np.repeat(np.repeat(alpha, scale, axis=0), scale, axis=1)
    return to_levels(bicubic(to_tensor(alpha), scale), white)


def _gb(amount: int) -> str:
    return f"{amount / 1e9:.1f} GB"

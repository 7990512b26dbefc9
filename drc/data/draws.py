"""Random crops of images, drawn by number alone, whatever was read before and by which worker."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from drc.core.errors import DataError
from drc.data.cache import ImageCache
from drc.data.images import image_size
from drc.settings.base import SMALLEST_PATCH

Item = dict[str, Any]
Skipped = tuple[int, str]
"""The number of an image that cannot be used, and why."""

CACHE_BYTES = 2 << 30
_CHECKED = 2000  # images whose size is looked at before the first crop
_TOLERATED = 0.1  # of the images


class Skips:
    """Which of `count` images cannot be used, and why.

    Attributes:
        reasons: one line for each, by number.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.reasons: dict[int, str] = {}

    def add(self, number: int, reason: str) -> bool:
        """Note an image; whether that is news.

        Raises:
            DataError: more than a tenth of the images are noted.
        """
        if number in self.reasons:
            return False
        self.reasons[number] = reason
        self.require_enough()
        return True

    def require_enough(self) -> None:
        """Raise DataError if more than a tenth of the images are noted."""
        if len(self.reasons) <= _TOLERATED * self.count:
            return
        first, *others = self.reasons.values()
        also = "".join(f"; {other}" for other in others[:2])
        more = ", ..." if len(others) > 2 else ""
        found = f"{len(self.reasons)} of {self.count} images cannot be used"
        raise DataError(f"{found}: {first}{also}{more}")


class RandomCrops(Dataset[Item]):
    """Items cut from images; which image and what of it is drawn from `(seed, index)` alone.

    An image that cannot be used is left out: the item then draws again. Which items do so depends
    on the images alone, so runs are the same for any number of workers and after any resume.

    The sizes of up to 2000 images, spread over all of them, are looked at when the dataset is made,
    those of the others when they are drawn, so that a million images cost no minutes at the start.

    Args:
        paths: the files that are cropped, for their sizes; empty where all are in memory already.
        count: of the images.
        side: of the crops, in pixels of those files.
        scale: what a crop's side in the settings, `patch`, is multiplied by to make `side`.
        length: number of items.
        seed: any integer.
        cache_bytes: of decoded images to keep in memory, for all workers together.

    Raises:
        DataError: no images, one of those looked at is smaller than the crops, or more than a tenth
            of them are unreadable.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        count: int,
        side: int,
        scale: int,
        length: int,
        seed: int,
        cache_bytes: int,
    ) -> None:
        if not count:
            raise DataError("there are no images to crop; pass a folder that holds some")
        self.length = length
        self.seed = seed % 2**64  # NumPy takes no negative seeds
        self.skips = Skips(count)
        self._side = side
        self._scale = scale
        self._cache = ImageCache(count, cache_bytes)
        for number in range(0, len(paths), -(-len(paths) // _CHECKED) or 1):
            try:
                size = image_size(paths[number])
            except DataError as error:
                self.skips.add(number, str(error))
            else:
                self._check_size(paths[number], *size)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        return self.draw(index)[0]

    def draw(self, index: int) -> tuple[Item, list[Skipped]]:
        """Item `index`, and the images that it would have shown if they could be used.

        Raises:
            IndexError: no such item.
            DataError: more than a tenth of the images turned out to be unusable.
        """
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        skipped: list[Skipped] = []
        while True:
            number = int(rng.integers(self.skips.count))
            images = self._usable(number)
            if images is not None:
                return self._crop(images, rng), skipped
            self.skips.require_enough()  # else, with none left to draw, this would never end
            skipped.append((number, self.skips.reasons[number]))

    @abstractmethod
    def _read(self, number: int) -> tuple[Tensor, ...]:
        """Decode what belongs to one image: `(3, H, W)` uint8 each. Raises DataError."""

    @abstractmethod
    def _crop(self, images: tuple[Tensor, ...], rng: np.random.Generator) -> Item:
        """Cut one item from what `_read` gave."""

    def _for_cache(self, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What to keep of `images`."""
        return images

    def _usable(self, number: int) -> tuple[Tensor, ...] | None:
        if number in self.skips.reasons:
            return None
        kept = self._cache.get(number)
        if kept is not None:
            return kept
        try:
            images = self._read(number)
        except DataError as error:
            self.skips.add(number, str(error))
            return None
        if self._cache.fits(sum(image.numel() for image in images)):
            self._cache.put(number, self._for_cache(images))
        return images

    def _check_size(self, path: Path | str, height: int, width: int) -> None:
        if min(height, width) < self._side:
            fits = min(height, width) // self._scale
            smaller = f", or use a patch of at most {fits}" if fits >= SMALLEST_PATCH else ""
            of = f" of patch {self._side // self._scale} at x{self._scale}" * (self._scale > 1)
            raise DataError(
                f"{path}: {height}x{width} is smaller than the {self._side}x{self._side} crop{of}; "
                f"remove it{smaller}"
            )


def random_view(rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """One of the eight views of a square, drawn evenly: flips, then perhaps a transposition.

    Returns:
        A function of `(C, p, p)` that gives `(C, p, p)`, contiguous.
    """
    flips = [dim for dim in (1, 2) if rng.random() < 0.5]
    transposed = rng.random() < 0.5

    def view(crop: Tensor) -> Tensor:
        crop = crop.flip(flips)
        return (crop.transpose(1, 2) if transposed else crop).contiguous()

    return view

"""LR images that have no HR images: real photos and the frames of videos, for adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from drc.core.errors import DataError
from drc.data.draws import CACHE_BYTES, Item, RandomCrops, random_view
from drc.data.folders import images_in, listed
from drc.data.images import read_view, to_unit
from drc.data.loader import OnSkip, StepLoader
from drc.data.matlab import window
from drc.data.video import VIDEO_SUFFIXES, read_frames

Source = Path | str | Sequence[Path | str] | Sequence[Tensor]
"""A folder of images, a video file, a list of image files, or images decoded already."""


def find_images(folder: Path | str) -> list[Path]:
    """List the image files in a folder and in the folders in it, sorted by name.

    Raises:
        DataError: the folder is missing or holds no images.
    """
    root = Path(folder)
    with listed(root):
        inner = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
        images = sorted(image for each in (root, *inner) for image in images_in(each))
    if not images:
        raise DataError(
            f"{root}: no images found in it or in the folders in it; a video is named itself"
        )
    return images


class UnpairedDataset(RandomCrops):
    """Random crops: item i is `{"lr": (3, p, p)}`, float32 in 0..1, drawn from `(seed, i)` alone.

    Args:
        images: files, or images decoded already, `(3, H, W)` uint8.
        patch: side of the crops in pixels.
        length: number of items.
        seed: any integer.
        cache_bytes: memory for decoded files, shared by all loader processes.

    Raises:
        DataError: as `RandomCrops`.
    """

    def __init__(
        self,
        images: Sequence[Path] | Sequence[Tensor],
        patch: int,
        length: int,
        seed: int,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.images: list[Path | Tensor] = list(images)
        self.patch = patch
        files = [image for image in self.images if isinstance(image, Path)]
        cached = cache_bytes if files else 0
        super().__init__(files, len(self.images), patch, 1, length, seed, cached)
        for image in self.images:
            if isinstance(image, Tensor):
                self._check_size("a frame of the video", image.shape[-2], image.shape[-1])

    def _read(self, number: int) -> tuple[Tensor, ...]:
        source = self.images[number]
        if isinstance(source, Tensor):
            return (source,)
        image = read_view(source)
        self._check_size(source, *image.shape[1:])
        return (image,)

    def _crop(self, images: tuple[Tensor, ...], rng: np.random.Generator) -> Item:
        (image,) = images
        top, left = (int(rng.integers(side - self.patch + 1)) for side in image.shape[1:])
        view = random_view(rng)
        return {"lr": to_unit(view(window(image, top, left, self.patch)))}


def unpaired_loader(
    source: Source,
    *,
    patch: int,
    batch: int,
    steps: int,
    seed: int,
    start: int = 0,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
    on_skip: OnSkip | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> StepLoader:
    """Batches of random crops of LR images, for steps `start` to `steps - 1` of a run.

    Of a video, at most 200 evenly spaced frames are decoded once and kept in memory, as
    `read_frames` does. Batches, shares and unusable images are as for `drc.data.crops.crop_loader`.

    Args:
        source: a folder as `find_images` takes it, a video file, image files, or decoded images,
            `(3, H, W)` uint8.
        patch: side of the crops in pixels.
        cache_bytes: memory for decoded files.
        batch, steps, start, workers, share, on_skip: as for `StepLoader`.
        seed: any integer.

    Returns:
        A loader of `steps - start` dicts `{"lr": (batch, 3, patch, patch)}`, float32 in 0..1.

    Raises:
        DataError: no images, unusable ones, or some that are smaller than the patch.
        UsageError: a video, and PyAV is not installed; a share that cannot be.
    """
    images = open_images(source, on_skip)
    dataset = UnpairedDataset(images, patch, steps * batch, seed, cache_bytes)
    return StepLoader(
        dataset,
        batch=batch,
        steps=steps,
        start=start,
        workers=workers,
        share=share,
        on_skip=on_skip,
    )


def open_images(source: Source, on_skip: OnSkip | None = None) -> list[Path] | list[Tensor]:
    """The files of a source, or the frames of a video, `(3, H, W)` uint8.

    Raises DataError and UsageError as `find_images` and `read_frames` do.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir():
            return read_frames(path, on_skip=on_skip)
        return find_images(path)
    frames = [image for image in source if isinstance(image, Tensor)]
    return frames or [Path(image) for image in source if not isinstance(image, Tensor)]

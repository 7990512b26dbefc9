"""Datasets of image pairs: random training crops, whole images, and those held out of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from drc.core.errors import DataError, UsageError
from drc.data.degrade import Degradation
from drc.data.draws import CACHE_BYTES, Item, RandomCrops, random_view
from drc.data.folders import ImagePair, check_match, cropped, load_hr, load_pair
from drc.data.images import read_view, to_unit
from drc.data.loader import OnSkip, StepLoader
from drc.data.matlab import downscale, downscale_window, window

_SHARE = 5  # one of so many images is held out at most
_SMALLEST = 11  # pixels of the window of SSIM, which is measured along


class ImageDataset(Dataset[Item]):
    """Whole images: item i is `{"lr": (3, h, w), "hr": (3, h * scale, w * scale), "name": str}`.

    Values are float32 in 0..1. Items raise `DataError` as `load_pair` does.
    """

    def __init__(self, pairs: Sequence[ImagePair], scale: int) -> None:
        self.pairs = list(pairs)
        self.scale = scale

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        pair = self.pairs[index]
        lr, hr = load_pair(pair, self.scale)
        return {"lr": to_unit(lr), "hr": to_unit(hr), "name": pair.name}


class HeldOut:
    """Whole images `(lr, hr)`, `(3, h, w)` and `(3, h * scale, w * scale)`, float32 in 0..1.

    Every pass gives the same images: one that is degraded gets a kernel of its own, drawn from its
    number in the list.

    Raises (while iterating):
        DataError: an image is unreadable, or too small to measure.
    """

    def __init__(
        self, pairs: Sequence[ImagePair], scale: int, degradation: Degradation | None
    ) -> None:
        self.pairs, self.scale, self.degradation = pairs, scale, degradation

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, pair in enumerate(self.pairs):
            if self.degradation is None:
                lr, hr = load_pair(pair, self.scale)
            else:
                hr = load_hr(pair, self.scale)
                _, lr = self.degradation.degrade(hr, number)
            if min(hr.shape[-2:]) < _SMALLEST + 2 * self.scale:
                raise DataError(
                    f"{pair.hr}: a {hr.shape[-2]}x{hr.shape[-1]} image is too small to measure; "
                    "hold out others by --val-data FOLDER"
                )
            yield to_unit(lr), to_unit(hr)


class CropDataset(RandomCrops):
    """Random aligned crops: item i is `{"lr": (3, p, p), "hr": (3, p * scale, p * scale)}`.

    Values are float32 in 0..1. The image, the window, the flips and the transposition of item i
    are drawn from `(seed, i)` alone, so they depend neither on workers nor on what was read before.
    Pairs that are unreadable or do not match are left out, up to a tenth of them.

    Args:
        pairs: at least one.
        scale: HR side over LR side.
        patch: side of the LR crop in pixels.
        length: number of items.
        seed: any integer.
        cache_bytes: of decoded images to keep in memory, for all workers together; 0 for none.
        degradation: makes the LR crops from the HR images, each with a kernel of its own, drawn
            from `(seed, i)` too; the LR files of the pairs are not read. None for those files, or
            for bicubic LR images where there are none. The HR crops are the same either way.

    Raises:
        DataError: no pairs, or an HR image that is smaller than the patch, or more than a tenth
            unreadable, as far as `RandomCrops` looks at them.
        UsageError: the degradation is of another scale.
    """

    def __init__(
        self,
        pairs: Sequence[ImagePair],
        scale: int,
        patch: int,
        length: int,
        seed: int,
        cache_bytes: int = CACHE_BYTES,
        degradation: Degradation | None = None,
    ) -> None:
        if degradation is not None and degradation.scale != scale:
            raise UsageError(f"the degradation is for x{degradation.scale}, the crops are x{scale}")
        self.pairs = list(pairs)
        self.scale = scale
        self.patch = patch
        self.degradation = degradation
        files = [pair.hr for pair in self.pairs]
        super().__init__(files, len(files), patch * scale, scale, length, seed, cache_bytes)

    def _read(self, number: int) -> tuple[Tensor, ...]:
        """The LR and the HR image, or the latter alone where LR crops are made from it."""
        pair = self.pairs[number]
        hr = read_view(pair.hr)
        self._check_size(pair.hr, *hr.shape[1:])
        if pair.lr is None or self.degradation is not None:
            return (hr,)
        lr = read_view(pair.lr)
        check_match(pair, self.scale, lr, hr)
        return lr, hr

    def _for_cache(self, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Bicubic LR images are kept too: they cost as much as a few of their windows."""
        if len(images) == 2 or self.degradation is not None:
            return images
        hr = cropped(images[0], self.scale).contiguous()
        return downscale(hr[None].float(), self.scale)[0].to(hr.dtype), images[0]

    def _crop(self, images: tuple[Tensor, ...], rng: np.random.Generator) -> Item:
        scale, patch, hr = self.scale, self.patch, images[-1]
        rows, columns = (side // scale for side in hr.shape[1:])
        top = int(rng.integers(rows - patch + 1))
        left = int(rng.integers(columns - patch + 1))
        view = random_view(rng)
        crop = window(hr, top * scale, left * scale, patch * scale)
        if len(images) == 2:
            lr = window(images[0], top, left, patch)
            return {"lr": to_unit(view(lr)), "hr": to_unit(view(crop))}
        if self.degradation is None:
            lr = downscale_window(hr[None], scale, top, left, patch)[0]
        else:
            generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
            kernel = self.degradation.sample(generator)
            lr = self.degradation.apply_window(
                hr[None], kernel, top, left, patch, generator=generator, value_range=255.0
            )[0]
        return {"lr": to_unit(view(lr)), "hr": to_unit(view(crop))}


def crop_loader(
    pairs: Sequence[ImagePair],
    scale: int,
    *,
    patch: int,
    batch: int,
    steps: int,
    seed: int,
    start: int = 0,
    workers: int = 0,
    degradation: Degradation | None = None,
    share: tuple[int, int] = (0, 1),
    on_skip: OnSkip | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> StepLoader:
    """Batches of random crops for steps `start` to `steps - 1` of a run.

    Batch k holds items `k * batch` onwards of a `CropDataset`, whatever `start` and `workers`:
    a run that resumes at `start` gets the batches it would have got, and reads no others.
    `degradation` makes the LR crops, as there. With `share`, the number of this process and of all,
    only this process's rows of every batch are read, as `StepLoader` says.

    `cache_bytes` of decoded images are kept in memory, which the workers share.
    Unusable images are left out; `on_skip` is given one line for each. More than a tenth of them
    are an error.

    Returns:
        A loader of `steps - start` dicts `{"lr": (batch, 3, p, p), "hr": ...}`, floats in 0..1. Its
        `sharded` is True where there are several processes.

    Raises:
        DataError, UsageError: as `CropDataset` and `StepLoader`.
    """
    dataset = CropDataset(
        pairs, scale, patch, steps * batch, seed, cache_bytes=cache_bytes, degradation=degradation
    )
    return StepLoader(
        dataset,
        batch=batch,
        steps=steps,
        start=start,
        workers=workers,
        share=share,
        on_skip=on_skip,
    )


def split_off(pairs: Sequence[ImagePair], count: int) -> tuple[list[ImagePair], list[ImagePair]]:
    """The images to train on, and the last `count` of them, but at most a fifth, to hold out.

    Raises:
        DataError: too few images to hold one out.
    """
    count = min(count, len(pairs) // _SHARE)
    if not count:
        raise DataError(
            f"{len(pairs)} images are too few to hold one of them out; pass held-out images by "
            "--val-data FOLDER, or --val-data none to measure nothing"
        )
    return list(pairs[:-count]), list(pairs[-count:])

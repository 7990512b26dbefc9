"""Datasets of image pairs: random training crops, and whole images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from drc.config_base import SMALLEST_PATCH
from drc.data.degrade import Degradation
from drc.data.folders import ImagePair, load_hr, load_pair
from drc.data.images import image_size, to_unit
from drc.errors import DataError, UsageError

Item = dict[str, Any]

_CACHE_BYTES = 2 << 30


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


class CropDataset(Dataset[Item]):
    """Random aligned crops: item i is `{"lr": (3, p, p), "hr": (3, p * scale, p * scale)}`.

    Values are float32 in 0..1. The image, the place, the flips and the transposition of item i
    are drawn from `(seed, i)` alone, so they depend neither on workers nor on what was read before.

    Args:
        pairs: at least one.
        scale: HR side over LR side.
        patch: side of the LR crop in pixels.
        length: number of items.
        seed: any integer.
        cache: keep decoded images in memory, up to 2 GiB over all workers.
        degradation: makes the LR crops from the HR images, each with a kernel of its own, drawn
            from `(seed, i)` too; the LR files of the pairs are not read. None for those files, or
            for bicubic LR images where there are none. The HR crops are the same either way.

    Raises:
        DataError: no pairs, or an image that is unreadable or smaller than the patch.
        UsageError: the degradation is of another scale.
    """

    def __init__(
        self,
        pairs: Sequence[ImagePair],
        scale: int,
        patch: int,
        length: int,
        seed: int,
        cache: bool = True,
        degradation: Degradation | None = None,
    ) -> None:
        if not pairs:
            raise DataError("there are no images to crop; pass a folder that holds some")
        if degradation is not None and degradation.scale != scale:
            raise UsageError(f"the degradation is for x{degradation.scale}, the crops are x{scale}")
        self.pairs = list(pairs)
        self.scale = scale
        self.patch = patch
        self.length = length
        self.seed = seed % 2**64  # NumPy takes no negative seeds
        self.cache = cache
        self.degradation = degradation
        self._images: dict[int, tuple[Tensor, ...]] = {}
        self._cached_bytes = 0
        for pair in self.pairs:
            _check_size(pair, scale, patch)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        images = self._load(int(rng.integers(len(self.pairs))))
        hr = images[-1]
        top = int(rng.integers(hr.shape[1] // self.scale - self.patch + 1))
        left = int(rng.integers(hr.shape[2] // self.scale - self.patch + 1))
        flips = [dim for dim in (1, 2) if rng.random() < 0.5]
        transposed = rng.random() < 0.5

        def view(crop: Tensor) -> Tensor:
            crop = crop.flip(flips)
            return to_unit(crop.transpose(1, 2) if transposed else crop).contiguous()

        if self.degradation is None:
            lr = _window(images[0], top, left, self.patch)
        else:
            generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
            kernel = self.degradation.sample(generator)
            lr = self.degradation.apply_window(
                hr[None], kernel, top, left, self.patch, generator=generator, value_range=255.0
            )[0]
        place = (top * self.scale, left * self.scale, self.patch * self.scale)
        return {"lr": view(lr), "hr": view(_window(hr, *place))}

    def _load(self, index: int) -> tuple[Tensor, ...]:
        """The LR and the HR image; the latter alone where a degradation makes the LR crops."""
        if index in self._images:
            return self._images[index]
        pair = self.pairs[index]
        degraded = self.degradation is not None
        images = (load_hr(pair, self.scale),) if degraded else load_pair(pair, self.scale)
        worker = get_worker_info()
        limit = _CACHE_BYTES // (worker.num_workers if worker else 1)
        size = sum(image.numel() for image in images)
        if self.cache and self._cached_bytes + size <= limit:
            self._images[index] = images
            self._cached_bytes += size
        return images


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
) -> DataLoader[Item]:
    """Batches of random crops for steps `start` to `steps - 1` of a run.

    Batch k holds items `k * batch` onwards of a `CropDataset`, whatever `start` and `workers`:
    a run that resumes at `start` gets the batches it would have got, and reads no others.
    `degradation` makes the LR crops, as there.

    Returns:
        A loader of `steps - start` dicts `{"lr": (batch, 3, p, p), "hr": ...}`, floats in 0..1.

    Raises:
        DataError, UsageError: as `CropDataset`; while iterating, an unreadable or mismatched pair.
    """
    dataset = CropDataset(
        pairs, scale, patch, length=steps * batch, seed=seed, degradation=degradation
    )
    # Workers do not persist: after an error they would wait for the garbage collector, 5 s each.
    return _CropLoader(
        _ErrorsAsItems(dataset),
        batch_size=batch,
        sampler=range(start * batch, steps * batch),
        num_workers=workers,
        collate_fn=_collate,
    )


class _ErrorsAsItems(Dataset[Any]):
    """Hands a `DataError` on as the item, because torch rewrites errors raised in workers."""

    def __init__(self, dataset: CropDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item | DataError:
        try:
            return self.dataset[index]
        except DataError as error:
            return error


def _collate(items: list[Item | DataError]) -> Item | DataError:
    error = next((item for item in items if isinstance(item, DataError)), None)
    return error if error is not None else default_collate(items)


class _CropLoader(DataLoader[Any]):
    """Raises the errors that `_ErrorsAsItems` handed on."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


def _window(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return image[:, top : top + size, left : left + size]


def _check_size(pair: ImagePair, scale: int, patch: int) -> None:
    height, width = image_size(pair.hr)
    side = patch * scale
    if min(height, width) < side:
        fits = min(height, width) // scale
        smaller = f", or use a patch of at most {fits}" if fits >= SMALLEST_PATCH else ""
        raise DataError(
            f"{pair.hr}: {height}x{width} is smaller than the {side}x{side} crop of patch {patch} "
            f"at x{scale}; remove it{smaller}"
        )


__all__ = ["CropDataset", "ImageDataset", "crop_loader"]

"""Batches of any loader as tensors in the network's own range; nothing else converts them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from drc.core.errors import DataError
from drc.data.matlab import luma

_KEYS = (("lr", "hr"), ("lq", "gt"))
_ACCEPTED = "a batch is (lr, hr), or a dict with lr and hr, or with lq and gt"
_TOLERANCE = 1e-3  # of the range: rounding in the user's own conversions
_WHITE8 = 255.0
_RGB = 3


def unpack(batch: Any, scale: int | None = None) -> tuple[Tensor, Tensor]:
    """Take the LR and HR tensors out of one batch of any accepted form.

    Args:
        batch: a tuple or list of two tensors, or a dict with `lr` and `hr`, or `lq` and `gt`;
            further keys are ignored.
        scale: HR side over LR side, checked when given.

    Returns:
        `(lr, hr)`, `(N, C, h, w)` and `(N, C, h * scale, w * scale)`, as they were.

    Raises:
        DataError: another form, or shapes that do not match.
    """
    lr, hr = _fields(batch)
    for name, image in (("lr", lr), ("hr", hr)):
        if not isinstance(image, Tensor) or image.ndim != 4 or not image.numel():
            shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise DataError(f"{name} must be a tensor of shape (N, C, H, W), not {shape}")
    if scale is not None:
        height, width = lr.shape[-2:]
        if hr.shape != (*lr.shape[:2], height * scale, width * scale):
            raise DataError(
                f"lr {tuple(lr.shape)} and hr {tuple(hr.shape)} are not a x{scale} pair; "
                "crop hr to scale times lr"
            )
    return lr, hr


class BatchReader:
    """Iterates over a loader as `(lr, hr)`: checked, float32, in the network's range, on a device.

    It can be iterated again as often as the loader itself can.

    Args:
        loader: an iterable of batches that `unpack` accepts.
        scale: HR side over LR side.
        value_range: the network's largest value, 1.0 or 255.0.
        device: where the tensors go.
        data_range: the loader's largest value. None: 255 for uint8 tensors; for floats, decided
            on the first batch: 1 if no value exceeds it, otherwise `value_range`.
        channels: of the network's images. RGB batches become luma where that is 1.

    Raises (while iterating):
        DataError: no batches, an unusable batch, values outside the range, NaN or infinity.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        scale: int,
        value_range: float,
        device: torch.device | str,
        data_range: float | None = None,
        channels: int = _RGB,
    ) -> None:
        if not isinstance(loader, Iterable):
            raise DataError(
                f"the loader is a {type(loader).__name__}; pass a DataLoader or a list of batches"
            )
        self.loader = loader
        self.scale = scale
        self.value_range = value_range
        self.device = torch.device(device)
        self.data_range = data_range
        self.channels = channels

    def __iter__(self) -> Iterator[Any]:
        empty = True
        for batch in self.loader:
            images = self._images(batch)
            self._decide_range(images)
            yield tuple(
                self._recolour(name, self._convert(image, self._white(name, image)))
                for name, image in images.items()
            )
            empty = False
        if empty:
            raise DataError(
                "the loader gave no batches; pass one that holds data and can be iterated again"
            )

    def take(self, n_batches: int) -> Iterator[Any]:
        """The first `n_batches` batches of a new iteration, fewer when the loader ends."""
        return itertools.islice(self, n_batches)

    def _images(self, batch: Any) -> dict[str, Tensor]:
        return dict(zip(("lr", "hr"), unpack(batch, self.scale), strict=True))

    def _decide_range(self, images: Mapping[str, Tensor]) -> None:
        floats = [image for image in images.values() if image.is_floating_point()]
        if self.data_range is None and floats:
            highest = max(image.max().item() for image in floats)
            self.data_range = 1.0 if highest <= 1 + _TOLERANCE else self.value_range

    def _white(self, name: str, image: Tensor) -> float:
        """The value of white in `image`, after checking that its values fit."""
        if image.dtype == torch.uint8:
            return _WHITE8
        if not image.is_floating_point() or self.data_range is None:
            raise DataError(f"{name} is {image.dtype}; use float tensors, or uint8 in 0..255")
        low, high = (bound.item() for bound in torch.aminmax(image.detach()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(f"{name} holds NaN or infinite values; check the images of the loader")
        slack = self.data_range * _TOLERANCE
        if low < -slack or high > self.data_range + slack:
            accepted = "0..1" if self.value_range == 1 else f"0..1 or 0..{self.value_range:g}"
            raise DataError(
                f"{name} reaches from {low:g} to {high:g}, outside 0..{self.data_range:g}; "
                f"this network takes batches in {accepted}"
            )
        return self.data_range

    def _convert(self, image: Tensor, white: float) -> Tensor:
        moved = image.to(self.device, torch.float32, non_blocking=True)
        if white > self.value_range:  # a division, so that 8-bit levels become what files give
            return moved / (white / self.value_range)
        return moved * (self.value_range / white)

    def _recolour(self, name: str, image: Tensor) -> Tensor:
        """`image` in the channels of the network."""
        found = image.shape[1]
        if found == self.channels:
            return image
        if found == _RGB and self.channels == 1:
            return luma(image, self.value_range)
        wanted = "RGB images" if self.channels == _RGB else f"images of {self.channels} channels"
        raise DataError(
            f"{name} has {found} channels and this network takes {wanted}; pass batches of those"
        )


class LrReader(BatchReader):
    """Iterates over LR images that have no HR images, as `(lr,)`; otherwise as `BatchReader` does.

    A batch is a tensor `(N, C, h, w)`, or a dict with `lr` or `lq`.
    """

    def _images(self, batch: Any) -> dict[str, Tensor]:
        if isinstance(batch, Mapping):
            batch = next((batch[low] for low, _ in _KEYS if low in batch), None)
        if not isinstance(batch, Tensor) or batch.ndim != 4 or not batch.numel():
            raise DataError(
                "a batch of unpaired images is not usable; it is a tensor (N, C, h, w), or a dict "
                "that holds one as lr or lq"
            )
        return {"lr": batch}


def _fields(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, Mapping):
        for low, high in _KEYS:
            if low in batch and high in batch:
                return batch[low], batch[high]
        raise DataError(
            f"a batch with the keys {sorted(map(str, batch))} is not usable; {_ACCEPTED}"
        )
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2:
            return batch[0], batch[1]
        raise DataError(f"a batch of {len(batch)} parts is not usable; {_ACCEPTED}")
    raise DataError(f"a batch of type {type(batch).__name__} is not usable; {_ACCEPTED}")

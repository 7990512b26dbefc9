"""Images that are kept out of training, to choose the best weights by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from drc.core.errors import DataError
from drc.data.degrade import Degradation
from drc.data.folders import ImagePair, load_hr, load_pair
from drc.data.images import to_unit

_SHARE = 5
_SMALLEST = 11  # pixels of the window of SSIM, which is measured along


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


class HeldOut:
    """Whole images `(lr, hr)`, `(3, h, w)` and `(3, h * scale, w * scale)`, float32 in 0..1.

    Every pass gives the same images: one that is degraded gets a kernel of its own, drawn from its
    place in the list.

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
                generator = torch.Generator().manual_seed(number)
                kernel = self.degradation.sample(generator)
                lr = self.degradation.apply(
                    hr[None].float(), kernel, generator=generator, value_range=255.0
                )[0]
            if min(hr.shape[-2:]) < _SMALLEST + 2 * self.scale:
                raise DataError(
                    f"{pair.hr}: a {hr.shape[-2]}x{hr.shape[-1]} image is too small to measure; "
                    "hold out others by --val-data FOLDER"
                )
            yield to_unit(lr), to_unit(hr)


__all__ = ["HeldOut", "split_off"]

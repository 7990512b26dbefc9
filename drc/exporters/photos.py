"""Real photos as LR images, to trace, check and calibrate by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drc.core.errors import ModelError
from drc.core.probe import OUT_OF_MEMORY, SIZES, Size, smallest_multiple
from drc.data.bundled import bundled_pairs
from drc.data.folders import find_pairs, load_pair
from drc.data.images import read_image, to_unit
from drc.data.matlab import luma
from drc.exporters.formats.base import Image, first_line
from drc.exporters.wrapper import UnitNetwork

_CALIBRATION_SIDE, _CALIBRATION_CROPS = 64, 32


def check_images(network: UnitNetwork, lr_size: Size | None) -> tuple[list[Tensor], int]:
    """Three photos for a network, `(1, C, h, w)` in 0..1, and what sides must be multiples of.

    Args:
        network: runs on each of them.
        lr_size: height and width, the same for all three; None for three sizes, the first of which
            is that to trace by: as they come if the network takes any, else rounded up to the
            smallest multiple that it takes.

    Raises:
        ModelError: the network does not run on such images.
    """

    def run_on(sizes: Sequence[Size]) -> list[Tensor]:
        pairs = [*bundled_pairs("test"), *bundled_pairs("train")]
        images = [_middle(network, pair.hr, size) for pair, size in zip(pairs, sizes, strict=False)]
        for lr in images:
            _run(network, lr)
        return images

    if lr_size is not None:
        return run_on([lr_size] * len(SIZES)), 1
    return smallest_multiple(run_on)


def calibration_images(
    network: UnitNetwork, data: str | Path | None, lr_size: Size | None
) -> list[Image]:
    """LR crops for the ranges of int8.

    Args:
        network: whose scale and channels they have.
        data: a folder in any layout of `find_pairs` (its training split); None for the bundled
            photos, the training ones.
        lr_size: height and width; None for 64x64.

    Raises:
        DataError: no images, or unreadable ones.
    """
    scale = network.traits.scale
    pairs = bundled_pairs("train") if data is None else find_pairs(data, scale, "train")
    draw = np.random.default_rng(0)
    size = lr_size or (_CALIBRATION_SIDE, _CALIBRATION_SIDE)
    if len(pairs) > _CALIBRATION_CROPS:
        chosen = draw.permutation(len(pairs))[:_CALIBRATION_CROPS]
        pairs = [pairs[index] for index in chosen]
    found: list[Image] = []
    for number, pair in enumerate(pairs):
        lr = _fitted(to_unit(load_pair(pair, scale)[0])[None], network.traits.channels, size)
        last = number == len(pairs) - 1
        share = _CALIBRATION_CROPS - len(found) if last else _CALIBRATION_CROPS // len(pairs)
        for _ in range(share):
            top, left = (
                int(draw.integers(0, have - want + 1))
                for have, want in zip(lr.shape[2:], size, strict=True)
            )
            found.append(_cut(lr, top, left, size).numpy())
    return found


def _run(network: UnitNetwork, lr: Tensor) -> None:
    try:
        with torch.no_grad():
            network(lr)
    except OUT_OF_MEMORY:
        raise
    except Exception as error:  # a foreign forward raises what it likes
        raise ModelError(
            f"the network does not run on an LR image of {lr.shape[2]}x{lr.shape[3]}: "
            f"{first_line(error)}; pass --lr-size HxW with a size that it takes"
        ) from error


def _middle(network: UnitNetwork, photo: Path, size: Size) -> Tensor:
    image = _fitted(to_unit(read_image(photo))[None], network.traits.channels, size)
    top, left = ((have - want) // 2 for have, want in zip(image.shape[2:], size, strict=True))
    return _cut(image, top, left, size)


def _fitted(image: Tensor, channels: int, size: Size) -> Tensor:
    """`(1, 3, H, W)` with other channels, and mirrored until it is as large as `size`."""
    if channels == 1:
        image = luma(image, 1.0)
    elif channels != 3:
        image = image[:, [index % 3 for index in range(channels)]]
    pads = [(0, max(want - have, 0)) for have, want in zip(image.shape[2:], size, strict=True)]
    if any(after for _, after in pads):
        image = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), *pads], "symmetric"))
    return image


def _cut(image: Tensor, top: int, left: int, size: Size) -> Tensor:
    return image[:, :, top : top + size[0], left : left + size[1]].contiguous()

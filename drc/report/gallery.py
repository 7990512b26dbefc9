"""Test images as networks see and make them: whole, in close-ups, and as maps of errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from drc.data.colour import luma
from drc.data.folders import ImagePair, load_pair
from drc.data.images import to_uint8, to_unit
from drc.data.matlab import upscale
from drc.evaluation.image import psnr_y
from drc.evaluation.inference import Inference, borrowed
from drc.models.traits import get_traits
from drc.report.schema import ImageQuality
from drc.runtime import Progress, resolve_device

DEFAULT_PHOTOS = 3
MOST_PHOTOS = 8
GAIN = 5
"""Errors are drawn this many times as large as they are."""

_SIDE = 512  # pixels of the part that is shown of each of three images; more images, smaller parts
_CLOSE_UP = 64
_CLOSE_UPS = 2


@dataclass(frozen=True)
class Layer:
    """One form of an image.

    Attributes:
        name: what made it: `LR`, `bicubic`, `dense`, `pruned`, `recovered` or `HR`.
        pixels: of the part shown, `(3, H, W)` uint8; for `LR` smaller by the scale.
        psnr: dB against HR, of the whole image; None for `LR`, `HR` and equal images.
        error: `(H, W)` float in 0..1, the absolute error to HR, mean over the colours; None for
            `LR` and `HR`.
    """

    name: str
    pixels: Tensor
    psnr: float | None = None
    error: Tensor | None = None


@dataclass(frozen=True)
class Photo:
    """One test image.

    Attributes:
        name: of the image.
        scale: HR side over LR side.
        whole: height and width of the HR image.
        corner: top and left, in HR pixels, of the part that is shown.
        layers: its forms, LR first and HR last.
        close_ups: top and left within that part, where the dense network and the last one differ
            most, the largest difference first.
    """

    name: str
    scale: int
    whole: tuple[int, int]
    corner: tuple[int, int]
    layers: list[Layer]
    close_ups: list[tuple[int, int]]

    @property
    def close_up_side(self) -> int:
        """Height and width of a close-up, HR pixels, a multiple of the scale."""
        return close_up_side(self.scale, *self.layers[-1].pixels.shape[1:])


def choose(
    pairs: Sequence[ImagePair], figures: Sequence[ImageQuality], count: int
) -> list[ImagePair]:
    """Pick `count` images, from the one that lost most PSNR to the one that lost least.

    The first and the last of that ranking are among them, the others evenly between. Images
    without figures are taken in their order.
    """
    lost = {
        image.name: image.psnr_before - image.psnr_after
        for image in figures
        if image.psnr_before is not None and image.psnr_after is not None
    }
    ranked = sorted(pairs, key=lambda pair: -lost.get(pair.name, -math.inf))
    if count >= len(ranked):
        return ranked
    if count == 1:
        return ranked[:1]
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]


def photograph(
    networks: Mapping[str, nn.Module],
    pairs: Sequence[ImagePair],
    *,
    inference: Inference | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> list[Photo]:
    """Send images through the networks, whole, and keep the parts to show.

    Args:
        networks: name -> network, two at least, the dense one first, the result last; none is
            changed.
        pairs: the images, at most `MOST_PHOTOS` of them.
        inference: how images go through, as for measuring; None for whole and once.
        device: where to run.
        progress: called after each image.

    Raises:
        DataError: an image cannot be used.
        UsageError: the device does not exist.
    """
    place, way = resolve_device(device), inference or Inference()
    side = int(_SIDE * min(1.0, math.sqrt(DEFAULT_PHOTOS / max(1, len(pairs)))))
    photos = []
    for done, pair in enumerate(pairs, 1):
        photos.append(_photo(networks, pair, way, place, side))
        if progress is not None:
            progress("photos", done, len(pairs), {})
    return photos


def _photo(
    networks: Mapping[str, nn.Module],
    pair: ImagePair,
    inference: Inference,
    place: torch.device,
    side: int,
) -> Photo:
    scale = get_traits(next(iter(networks.values()))).scale
    lr, hr, images = _run(networks, pair, inference, place)
    first, *_, last = (images[name].float() for name in networks)
    apart = (first - last).abs().mean(0)
    height, width = (min(side, length) // scale * scale for length in hr.shape[1:])
    top, left = (start // scale * scale for start in _largest(apart, height, width))

    def part(image: Tensor, by: int = 1) -> Tensor:
        rows, columns = (
            slice(start // by, (start + length) // by)
            for start, length in ((top, height), (left, width))
        )
        return image[..., rows, columns]

    layers = [Layer("LR", _rgb(part(lr, scale)))]
    for name, image in images.items():
        error = (image.float() - hr.float()).abs().mean(0) / 255
        psnr = psnr_y(image, hr, scale)
        finite = psnr if math.isfinite(psnr) else None
        layers.append(Layer(name, _rgb(part(image)), finite, part(error)))
    layers.append(Layer("HR", _rgb(part(hr))))
    spots = _spots(part(apart), close_up_side(scale, height, width), scale)
    whole = hr.shape[1], hr.shape[2]
    return Photo(pair.name, scale, whole, (top, left), layers, spots)


def _run(
    networks: Mapping[str, nn.Module], pair: ImagePair, inference: Inference, place: torch.device
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """LR, HR, and what bicubic enlargement and each network make of LR; 8 bits, `(C, H, W)`."""
    traits = get_traits(next(iter(networks.values())))
    lr, hr = load_pair(pair, traits.scale)
    if traits.channels == 1:
        lr, hr = (to_uint8(luma(to_unit(image), 1.0)) for image in (lr, hr))
    images = {"bicubic": to_uint8(upscale(to_unit(lr)[None], traits.scale)[0])}
    for name, network in networks.items():
        with borrowed(network, place):
            white = get_traits(network).value_range
            sr = inference.run(network, to_unit(lr)[None].to(place) * white, traits.scale)
            images[name] = to_uint8(sr[0] / white).cpu()
    return lr, hr, images


def close_up_side(scale: int, height: int, width: int) -> int:
    """Side of a close-up of an image of that size, a multiple of the scale."""
    return min(_CLOSE_UP, height, width) // scale * scale


def _spots(apart: Tensor, side: int, step: int) -> list[tuple[int, int]]:
    """Where squares of `side` lie, apart from each other, on which the images differ most."""
    rest = apart.clone()
    found: list[tuple[int, int]] = []
    for _ in range(_CLOSE_UPS):
        top, left = (start // step * step for start in _largest(rest, side, side))
        if found and rest[top : top + side, left : left + side].max() <= 0:
            break  # too small an image for another, or no difference elsewhere
        found.append((top, left))
        # No second square may touch the first.
        rest[max(0, top - side) : top + 2 * side, max(0, left - side) : left + 2 * side] = -1
    return found


def _largest(apart: Tensor, height: int, width: int) -> tuple[int, int]:
    """Top and left of the window with the largest mean; the middle where all are equal."""
    # By running sums: averaging every window on its own takes minutes on large photos.
    sums = pad(apart.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    below, above = sums[height:], sums[:-height]
    means = (below - above)[:, width:] - (below - above)[:, :-width]
    if means.max() - means.min() < 1e-6:
        return means.shape[0] // 2, means.shape[1] // 2
    return divmod(int(means.argmax()), means.shape[1])


def _rgb(image: Tensor) -> Tensor:
    return image.expand(3, -1, -1).contiguous()


_RAMP = ((0, 0, 0), (58, 15, 110), (175, 50, 100), (245, 140, 40), (255, 250, 200))
"""Black over purple and orange to near white: brighter is larger, in any kind of colour vision."""


def error_map(error: Tensor) -> Tensor:
    """Draw errors, `(H, W)` in 0..1, as a picture `(3, H, W)` uint8; white from 1 / `GAIN` on."""
    ramp = torch.tensor(_RAMP, dtype=torch.float32)
    place = (error * GAIN).clamp(0, 1) * (len(_RAMP) - 1)
    below = place.floor().clamp(max=len(_RAMP) - 2)
    weight = (place - below)[..., None]
    low = below.long()
    colours = ramp[low] * (1 - weight) + ramp[low + 1] * weight
    return colours.round().to(torch.uint8).permute(2, 0, 1).contiguous()


def ramp_css() -> str:
    """The colours of `error_map` as a CSS gradient."""
    return f"linear-gradient(to right,{','.join(f'rgb{colour}' for colour in _RAMP)})"


__all__ = [
    "DEFAULT_PHOTOS",
    "GAIN",
    "MOST_PHOTOS",
    "Layer",
    "Photo",
    "choose",
    "error_map",
    "photograph",
    "ramp_css",
]

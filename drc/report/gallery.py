"""Test images as networks see and make them: whole, in close-ups, and as maps of errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from drc.core.runtime import Progress, resolve_device
from drc.data.folders import ImagePair, load_pair
from drc.data.images import to_uint8, to_unit
from drc.data.matlab import luma, upscale
from drc.evaluation.image import psnr_y
from drc.evaluation.inference import Inference, borrowed
from drc.networks.traits import Traits, get_traits
from drc.report.schema import ImageQuality

DEFAULT_PHOTOS = 3
MOST_PHOTOS = 8
# Pages stay below about 5 MB. Three images in nine forms, as a recovered network has them, are
# shown by parts of 512 pixels with two close-ups; more of either by smaller parts, and fewer.
_SIDE, _FORMS = 512, 9
_CLOSE_UP = 64
_CLOSE_UPS = 2
_MANY_PICTURES, _MOST_PICTURES = 72, 120


@dataclass(frozen=True)
class Form:
    """One form of an image.

    Attributes:
        name: what made it: `LR`, `bicubic`, the name of a network, or `HR`.
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
        forms: as which it is shown, LR first and HR last.
        close_ups: top and left within that part, where the networks compared differ most, the
            largest difference first.
        compared: names of the networks by whose difference parts were chosen, two at least.
    """

    name: str
    scale: int
    whole: tuple[int, int]
    corner: tuple[int, int]
    forms: list[Form]
    close_ups: list[tuple[int, int]]
    compared: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the part that is shown, HR pixels."""
        height, width = self.forms[-1].pixels.shape[1:]
        return height, width

    @property
    def about(self) -> str:
        """The size of the image, and which part is shown."""
        about = f"{self.whole[1]} x {self.whole[0]} pixels"
        if self.size == self.whole:
            return about
        (height, width), (row, column) = self.size, self.corner
        return f"{width} x {height} of {about}, from column {column}, row {row}"

    @property
    def slider(self) -> tuple[int, int]:
        """Indices among the forms of the two that a slider starts with."""
        names = [form.name for form in self.forms]
        return names.index(self.compared[0]), names.index(self.compared[-1])

    @property
    def close_up_side(self) -> int:
        """Height and width of a close-up, HR pixels, a multiple of the scale."""
        return close_up_side(self.scale, *self.size)


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
    compared: Sequence[str] = (),
    inference: Inference | Mapping[str, Inference] | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> list[Photo]:
    """Send images through the networks, whole, and keep the parts to show.

    The networks are taken from the mapping once, one after the other, and none is held.

    Args:
        networks: name -> network, two at least, of one scale and as many channels; none is changed,
            and none is called as another form of an image is, such as `HR`.
        pairs: the images, at most `most_photos` of them.
        compared: the networks whose difference says which parts to show; empty for the first and
            the last one.
        inference: how images go through, as for measuring, all networks or each; None for whole
            and once.
        device: where to run.
        progress: called after each image of each network.

    Raises:
        DataError: an image cannot be used.
        UsageError: the device does not exist.
    """
    names, where = list(networks), resolve_device(device)
    steps = iter(range(1, len(names) * len(pairs) + 1))
    shots: list[_Shot] = []
    for name in names:
        way = inference.get(name) if isinstance(inference, Mapping) else inference
        for _ in _enlarge(name, networks[name], pairs, shots, way or Inference(), where):
            if progress is not None:
                progress("photos", next(steps), len(names) * len(pairs), {})
    count, forms = max(1, len(pairs)), _forms(len(names))
    few = min(1.0, DEFAULT_PHOTOS / count) * min(1.0, _FORMS / forms)
    side = int(_SIDE * math.sqrt(few))
    close_ups = _CLOSE_UPS if count * forms <= _MANY_PICTURES else 1
    shown = tuple(compared) or (names[0], names[-1])
    return [_photo(shot, shown, side, close_ups) for shot in shots]


def most_photos(networks: int) -> int:
    """How many images of that many networks a page can take; `MOST_PHOTOS` of up to 6."""
    return max(1, min(MOST_PHOTOS, _MOST_PICTURES // _forms(networks)))


def _forms(networks: int) -> int:
    """LR, bicubic, HR, and of each network what it makes and the map of its errors."""
    return 3 + 2 * networks


@dataclass(frozen=True)
class _Shot:
    """An image, 8 bits, `(C, H, W)`, and by name what enlarged it."""

    name: str
    scale: int
    lr: Tensor
    hr: Tensor
    images: dict[str, Tensor]


def _load(pair: ImagePair, traits: Traits) -> _Shot:
    lr, hr = load_pair(pair, traits.scale)
    if traits.channels == 1:
        lr, hr = (to_uint8(luma(to_unit(image), 1.0)) for image in (lr, hr))
    bicubic = to_uint8(upscale(to_unit(lr)[None], traits.scale)[0])
    return _Shot(pair.name, traits.scale, lr, hr, {"bicubic": bicubic})


def _enlarge(
    name: str,
    network: nn.Module,
    pairs: Sequence[ImagePair],
    shots: list[_Shot],
    way: Inference,
    device: torch.device,
) -> Iterator[None]:
    """Add to `shots` what a network makes of each; the first network loads them."""
    traits = get_traits(network)
    if not shots:
        shots += [_load(pair, traits) for pair in pairs]
    white = traits.value_range
    with borrowed(network, device):
        for shot in shots:
            sr = way.run(network, to_unit(shot.lr)[None].to(device) * white, shot.scale)
            shot.images[name] = to_uint8(sr[0] / white).cpu()
            yield


def _photo(shot: _Shot, compared: tuple[str, ...], side: int, close_ups: int) -> Photo:
    scale, lr, hr, images = shot.scale, shot.lr, shot.hr, shot.images
    apart = _apart([images[name] for name in compared])
    height, width = (min(side, length) // scale * scale for length in hr.shape[1:])
    top, left = (start // scale * scale for start in _largest(apart, height, width))

    def part(image: Tensor, by: int = 1) -> Tensor:
        rows, columns = (
            slice(start // by, (start + length) // by)
            for start, length in ((top, height), (left, width))
        )
        return image[..., rows, columns].clone()  # a view would keep the whole image in memory

    forms = [Form("LR", _rgb(part(lr, scale)))]
    for name, image in images.items():
        error = (part(image).float() - part(hr).float()).abs().mean(0) / 255
        psnr = psnr_y(image, hr, scale)
        finite = psnr if math.isfinite(psnr) else None
        forms.append(Form(name, _rgb(part(image)), finite, error))
    forms.append(Form("HR", _rgb(part(hr))))
    spots = _spots(part(apart), close_up_side(scale, height, width), scale, close_ups)
    whole = hr.shape[1], hr.shape[2]
    return Photo(shot.name, scale, whole, (top, left), forms, spots, compared)


def _apart(images: Sequence[Tensor]) -> Tensor:
    """By how much `(C, H, W)` images differ at most, mean over the colours, `(H, W)`."""
    low = high = images[0]
    for image in images[1:]:
        low, high = torch.minimum(low, image), torch.maximum(high, image)
    return (high.float() - low.float()).mean(0)


def close_up_side(scale: int, height: int, width: int) -> int:
    """Side of a close-up of an image of that size, a multiple of the scale."""
    return min(_CLOSE_UP, height, width) // scale * scale


def _spots(apart: Tensor, side: int, step: int, count: int) -> list[tuple[int, int]]:
    """Where squares of `side` lie, apart from each other, on which the images differ most."""
    rest = apart.clone()
    found: list[tuple[int, int]] = []
    for _ in range(count):
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

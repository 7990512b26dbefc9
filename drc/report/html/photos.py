"""Photos as data URIs, ready for the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from drc.report.gallery import Photo
from drc.report.pictures import error_map

QUALITY = 90
"""Of the whole photos, which are WebP; close-ups are stored without loss."""


@dataclass(frozen=True)
class Shown:
    """A picture on the page.

    Attributes:
        name: what made it.
        caption: beside it, such as its PSNR; empty for none.
        alt: what stands in its place.
        source: a data URI.
        coarse: whether its pixels are drawn as squares.
    """

    name: str
    caption: str
    alt: str
    source: str
    coarse: bool = False


@dataclass(frozen=True)
class CloseUp:
    """One enlarged square in all its forms: the `plain` first ones, then error maps."""

    about: str
    shown: list[Shown]
    plain: int


@dataclass(frozen=True)
class PhotoView:
    """One photo on the page: what its slider compares, with the error maps, and close-ups."""

    photo: Photo
    shown: list[Shown]
    close_ups: list[CloseUp]


def view(photo: Photo) -> PhotoView:
    """Encode a photo."""
    close_ups = [_close_up(photo, top, left) for top, left in photo.close_ups]
    return PhotoView(photo, _shown(photo, photo.name), close_ups)


def _close_up(photo: Photo, top: int, left: int) -> CloseUp:
    side, (first_row, first_column) = photo.close_up_side, photo.corner
    about = f"column {first_column + left}, row {first_row + top}, {side} x {side} pixels"
    shown = _shown(photo, f"close-up of {photo.name}", (top, left))
    return CloseUp(about, shown, len(photo.forms))


def _shown(photo: Photo, what: str, close_up: tuple[int, int] | None = None) -> list[Shown]:
    """All forms, then the error maps of those that a network made, whole or in a close-up."""

    def part(image: Tensor, by: int = 1) -> Tensor:
        if close_up is None:
            return image
        top, left = (start // by for start in close_up)
        side = photo.close_up_side // by
        return image[..., top : top + side, left : left + side]

    plain, errors = [], []
    exact = close_up is not None
    for form in photo.forms:
        small = form.name == "LR"
        name = "LR, nearest" if small else form.name
        caption = "" if form.psnr is None else f"{form.psnr:.2f} dB"
        source = data_uri(part(form.pixels, photo.scale if small else 1), exact or small)
        plain.append(Shown(name, caption, f"{what}, {name}", source, exact or small))
        if form.error is not None and form.name != "bicubic":
            source = data_uri(error_map(part(form.error)), exact)
            alt = f"{what}, {name}: error map"
            errors.append(Shown(f"error of {name}", "", alt, source, exact))
    return [*plain, *errors]


def data_uri(image: Tensor, exact: bool = False) -> str:
    """`(3, H, W)` uint8 as WebP, or without loss as PNG."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    stream = io.BytesIO()
    if exact:
        picture.save(stream, "PNG", optimize=True)
    else:
        picture.save(stream, "WEBP", quality=QUALITY, method=4)
    kind = "png" if exact else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"

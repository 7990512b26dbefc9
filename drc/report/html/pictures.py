"""Photos as data URIs, ready for the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from drc.report.gallery import Layer, Photo, error_map

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

    place: str
    shown: list[Shown]
    plain: int


@dataclass(frozen=True)
class PhotoView:
    """One photo on the page.

    Attributes:
        name: of the image.
        about: its size, and which part is shown.
        width, height: of the part shown, HR pixels.
        layers: what the slider compares, with the error maps.
        close_ups: enlarged squares.
        left, right: places among `layers` of the two that the slider starts with.
    """

    name: str
    about: str
    width: int
    height: int
    layers: list[Shown]
    close_ups: list[CloseUp]
    left: int
    right: int


def view(photo: Photo) -> PhotoView:
    """Encode a photo."""
    height, width = photo.layers[-1].pixels.shape[1:]
    whole = f"{photo.whole[1]} x {photo.whole[0]} pixels"
    about = whole
    if (height, width) != photo.whole:
        about = (
            f"{width} x {height} of {whole}, from column {photo.corner[1]}, row {photo.corner[0]}"
        )
    names = [layer.name for layer in photo.layers]
    return PhotoView(
        name=photo.name,
        about=about,
        width=width,
        height=height,
        layers=[*_wholes(photo)],
        close_ups=[_close_up(photo, top, left) for top, left in photo.close_ups],
        left=names.index(photo.compared[0]),
        right=names.index(photo.compared[-1]),
    )


def _wholes(photo: Photo) -> list[Shown]:
    plain, errors = [], []
    for layer in photo.layers:
        small = layer.name == "LR"
        name = _name(layer)
        alt = f"{photo.name}, {name}"
        source = data_uri(layer.pixels, exact=small)
        plain.append(Shown(name, _caption(layer), alt, source, coarse=small))
        if layer.error is not None and layer.name != "bicubic":
            source = data_uri(error_map(layer.error))
            errors.append(Shown(f"error of {layer.name}", "", f"{alt}: error map", source))
    return [*plain, *errors]


def _close_up(photo: Photo, top: int, left: int) -> CloseUp:
    side, scale = photo.close_up_side, photo.scale
    part = slice(top, top + side), slice(left, left + side)
    plain, errors = [], []
    for layer in photo.layers:
        by = scale if layer.name == "LR" else 1
        rows, columns = (slice(s.start // by, s.stop // by) for s in part)
        alt = f"close-up of {photo.name}, {_name(layer)}"
        source = data_uri(layer.pixels[:, rows, columns], exact=True)
        plain.append(Shown(_name(layer), _caption(layer), alt, source, coarse=True))
        if layer.error is not None and layer.name != "bicubic":
            source = data_uri(error_map(layer.error[part]), exact=True)
            errors.append(Shown(f"error of {layer.name}", "", f"{alt}: error map", source, True))
    place = f"column {photo.corner[1] + left}, row {photo.corner[0] + top}, {side} x {side} pixels"
    return CloseUp(place, [*plain, *errors], len(plain))


def _name(layer: Layer) -> str:
    return "LR, nearest" if layer.name == "LR" else layer.name


def _caption(layer: Layer) -> str:
    return "" if layer.psnr is None else f"{layer.psnr:.2f} dB"


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


__all__ = ["QUALITY", "CloseUp", "PhotoView", "Shown", "data_uri", "view"]

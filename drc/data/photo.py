"""Decoded images with all that a viewer shows of them: grey or colour, alpha, 16 bits, profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from drc.core.errors import DataError

Levels = npt.NDArray[np.unsignedinteger[Any]]
"""`(H, W, C)` of 8 or 16 bits, full range."""

_PER_LEVEL = 257  # 65535 / 255: 16-bit values per 8-bit level
_WHITE16 = 65535
_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA", "La")
_RGB = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "YCbCr")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded image.

    Attributes:
        levels: `(H, W, 1)` for grey or `(H, W, 3)` for RGB; uint8 or uint16, full range.
        alpha: `(H, W, 1)` of the same type, or None.
        icc: colour profile.
        dpi: pixels per inch, across and down.
        file_bits: of the file's values, where they are more than could be read; else None.
        frames: frames or pages in the file, of which this is the first.
    """

    levels: Levels
    alpha: Levels | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    file_bits: int | None = None
    frames: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.levels.shape[0], self.levels.shape[1]

    @property
    def white(self) -> int:
        """The largest level: 255 or 65535."""
        return int(np.iinfo(self.levels.dtype).max)

    def joined(self) -> Levels:
        """Colour and alpha, `(H, W, 1 to 4)`."""
        if self.alpha is None:
            return self.levels
        return np.concatenate([self.levels, self.alpha], axis=2)

    def in_8bit(self) -> Photo:
        """The same with levels of 8 bits, rounded."""
        alpha = None if self.alpha is None else _to_8bit(self.alpha)
        return replace(self, levels=_to_8bit(self.levels), alpha=alpha)

    def turned(self, orientation: Any) -> Photo:
        """The same upright, of an image with an EXIF orientation of 1 to 8."""
        alpha = None if self.alpha is None else _turned(self.alpha, orientation)
        return replace(self, levels=_turned(self.levels, orientation), alpha=alpha)

    def to_pil(self) -> Image.Image:
        """An image of Pillow's, 8-bit: L, LA, RGB or RGBA."""
        return Image.fromarray(without_axis(self.in_8bit().joined()))


def photo_of(image: Image.Image, name: str = "image", upright: bool = True) -> Photo:
    """The photo in an image of Pillow's.

    Palettes are looked up, and a colour or a palette entry that is declared transparent becomes
    alpha. CMYK and Lab become RGB, without their profile.

    Args:
        image: of any mode.
        name: for people.
        upright: whether EXIF orientation is applied.

    Raises:
        DataError: floating-point values, or integers that 16 bits do not hold.
    """
    if image.mode == "F":
        raise DataError(f"{name}: floating-point images have no known white; save it as PNG")
    if image.mode.startswith("I"):
        return described(_grey16(image, name), image, upright)
    grey = image.mode in _GREY
    mode = "L" if grey else "RGB"
    if "transparency" in image.info or image.mode in _WITH_ALPHA:
        mode += "A"
    keeps_profile = grey or image.mode in _RGB
    image.load()
    levels = np.array(image if image.mode == mode else image.convert(mode))
    photo = described(levels if levels.ndim == 3 else levels[..., None], image, upright)
    return photo if keeps_profile else replace(photo, icc=None)


def described(levels: Levels, image: Image.Image, upright: bool = True) -> Photo:
    """Decoded `levels`, `(H, W, 1 to 4)`, with what `image` says of them."""
    has_alpha = levels.shape[2] in (2, 4)
    colour = np.ascontiguousarray(levels[..., :-1] if has_alpha else levels)
    photo = Photo(
        colour,
        np.ascontiguousarray(levels[..., -1:]) if has_alpha else None,
        image.info.get("icc_profile") or None,
        dots_per_inch(image.info),
    )
    return photo.turned(image.getexif().get(_ORIENTATION, 1)) if upright else photo


def without_axis(levels: Levels) -> Levels:
    """Grey as `(H, W)`, which is how libraries take it; others as they are."""
    return np.ascontiguousarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def dots_per_inch(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    """The entry `dpi`, where it is there and can be."""
    try:
        across, down = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def stretched(values: npt.NDArray[Any], white: int) -> Levels:
    """Values of another white in 16 bits."""
    wide = np.minimum(values.astype(np.uint32), white)
    return ((wide * _WHITE16 + white // 2) // white).astype(np.uint16)


def _grey16(image: Image.Image, name: str) -> Levels:
    """The values of a grey image of more than 8 bits, `(H, W, 1)`, or 2 with alpha."""
    values = np.asarray(image)[..., None]
    if values.min() < 0 or values.max() > _WHITE16:
        raise DataError(f"{name}: its values exceed 16 bits; save it as an 8 or 16-bit image")
    levels = values.astype(np.uint16)
    if "transparency" not in image.info:
        return levels
    alpha = np.where(levels == image.info["transparency"], 0, _WHITE16)
    return np.concatenate([levels, alpha.astype(np.uint16)], axis=2)


def _to_8bit(levels: Levels) -> Levels:
    """8-bit levels as they are, 16-bit ones divided by 257 and rounded."""
    if levels.dtype == np.uint8:
        return levels
    return ((levels.astype(np.uint32) + _PER_LEVEL // 2) // _PER_LEVEL).astype(np.uint8)


def _turned(levels: Levels, orientation: Any) -> Levels:
    if orientation in (5, 6, 7, 8):
        levels = levels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        levels = levels[::-1]
    return np.ascontiguousarray(levels)

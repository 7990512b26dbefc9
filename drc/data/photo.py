"""Images with all that a viewer shows of them: grey or colour, alpha, 16 bits, profile, size."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from drc.core.errors import DataError
from drc.data.deep import bits_not_read, no_warnings, open_image, raw_mode, read_deep, read_grey16
from drc.data.images import opened
from drc.data.levels import Levels, to_8bit, upright
from drc.data.tiff import read_tiff

_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA", "La")
_RGB = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "YCbCr")
_OF_FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")  # others have previews or layers
_LEVELS_APART = {"L;2": 85, "L;4": 17}  # raw mode -> 255 / the largest value in the file


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded image, upright.

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
        if self.white == 255:
            return self
        alpha = None if self.alpha is None else to_8bit(self.alpha)
        return replace(self, levels=to_8bit(self.levels), alpha=alpha)

    def to_pil(self) -> Image.Image:
        """An image of Pillow's, 8-bit: L, LA, RGB or RGBA."""
        levels = self.in_8bit().joined()
        return Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def read_photo(path: Path | str) -> Photo:
    """Read an image file; of several pages or frames the first.

    EXIF orientation is applied, palettes are looked up, and a colour or a palette entry that the
    file declares transparent becomes alpha. CMYK and Lab become RGB, without their profile.

    Raises:
        DataError: the file is missing, truncated, too large, not an image, or has floating-point
            values.
    """
    scan = read_tiff(path)
    if scan is not None:
        dpi = _dpi({"dpi": scan.dpi})
        return replace(_split(scan.levels), icc=scan.icc, dpi=dpi, frames=scan.pages)
    with opened(path) as image:
        deep = read_deep(path, image)
        if deep is not None:
            return replace(_photo(deep, image), frames=_frames(path))
        bits = bits_not_read(path, image)
        step = _LEVELS_APART.get(raw_mode(image), 1)
        if step > 1 and "transparency" in image.info:  # which Pillow compares with levels
            image.info["transparency"] *= step
        return replace(photo_of(image, str(path)), file_bits=bits, frames=_frames(path))


def photo_of(image: Image.Image, name: str = "image") -> Photo:
    """The photo in an image of Pillow's; orientation and the rest as `read_photo`.

    Raises:
        DataError: floating-point values, or integers that 16 bits do not hold.
    """
    if image.mode == "F":
        raise DataError(f"{name}: floating-point images have no known white; save it as PNG")
    if image.mode.startswith("I"):
        return _photo(read_grey16(name, image), image)
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    grey = image.mode in _GREY
    mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    keeps_profile = grey or image.mode in _RGB
    image.load()
    levels = np.asarray(image if image.mode == mode else image.convert(mode))
    photo = _photo(levels if levels.ndim == 3 else levels[..., None], image)
    return photo if keeps_profile else replace(photo, icc=None)


def _frames(path: Path | str) -> int:
    """How many frames or pages a file has whose first is known to be readable."""
    # Later ones may be damaged, of which Pillow tells in many ways.
    with suppress(Exception), no_warnings(), open_image(path) as image:
        return int(getattr(image, "n_frames", 1)) if image.format in _OF_FRAMES else 1
    return 1


def _photo(levels: Levels, image: Image.Image) -> Photo:
    """Turn decoded levels upright, and add what `image`, which is loaded, says of them."""
    turn = image.getexif().get(_ORIENTATION, 1)  # of TIFF files Pillow has applied and removed it
    icc = image.info.get("icc_profile")
    return replace(_split(upright(levels, turn)), icc=icc or None, dpi=_dpi(image.info))


def _split(levels: Levels) -> Photo:
    has_alpha = levels.shape[2] in (2, 4)
    colour = np.ascontiguousarray(levels[..., :-1] if has_alpha else levels)
    return Photo(colour, np.ascontiguousarray(levels[..., -1:]) if has_alpha else None)


def _dpi(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


__all__ = ["Photo", "photo_of", "read_photo"]

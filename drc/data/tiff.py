"""TIFF files of more than 8 bits, or of separate planes: Pillow reads them in 8, wrongly, or not.

The pixels are decoded by tifffile; what is here is what their values mean.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from drc.core.errors import DataError
from drc.data.photo import Levels, Photo, dots_per_inch, stretched

if TYPE_CHECKING:
    from tifffile import TiffPage

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}
"""Samples of a pixel, without the extra ones."""

_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, PackBits, LZMA, Zstandard
_ASSOCIATED, _UNASSOCIATED = 1, 2
_ALPHA = (_ASSOCIATED, _UNASSOCIATED, 999)  # 999 is what CorelDraw writes
_WHITE12 = 4095
_ORIENTATION, _ICC, _UNIT, _RESOLUTION = 274, 34675, 296, (282, 283)
_PER_INCH = {2: 1.0, 3: 2.54}  # unit of the resolution -> of them in an inch


def read_tiff(path: Path | str) -> Photo | None:
    """Read the first page of a TIFF file of 16 bits, of 12-bit grey, or of 8 with planes or extras.

    White is the largest level, also where the file says that it is 0; palettes are looked up, CMYK
    becomes RGB without its profile, colours that were multiplied by alpha are divided by it, and
    extra channels that are no alpha are left out. The page is turned upright.

    Returns:
        None for files of another kind, which are left to Pillow, and for those that are no TIFF.

    Raises:
        DataError: truncated, damaged or too large.
    """
    with _first_page(path) as page:
        if page is None:
            return None
        most = Image.MAX_IMAGE_PIXELS
        if most is not None and page.imagewidth * page.imagelength > 2 * most:
            raise DataError(f"{path}: the image is too large to read; split it into tiles")
        return _photo(page, _samples(page))


def tiff_size(path: Path | str) -> tuple[int, int] | None:
    """Height and width of what `read_tiff` gives, from the header; None where that is None."""
    with _first_page(path) as page:
        if page is None:
            return None
        sides = int(page.imagelength), int(page.imagewidth)
        return sides[::-1] if page.tags.valueof(_ORIENTATION, 1) in (5, 6, 7, 8) else sides


def is_tiff(path: Path | str) -> bool:
    """Whether a file begins as TIFF files do; False for one that cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


@contextmanager
def _first_page(path: Path | str) -> Iterator[TiffPage | None]:
    """The first page of a file that is read here, else None; errors become `DataError`s."""
    if not is_tiff(path):
        yield None
        return
    import tifffile  # rarely needed

    with ExitStack() as stack:
        stack.enter_context(silent_decoders())
        try:
            file = stack.enter_context(tifffile.TiffFile(path))
        except Exception:  # Pillow says better what is wrong, or does better
            yield None
            return
        try:
            page = file.pages.first
            yield page if _is_known(page) else None
        except (DataError, MemoryError):
            raise
        except Exception as error:  # tifffile and its decoders do not say what they raise
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: unreadable image ({reason}); replace or remove it") from error


@contextmanager
def silent_decoders() -> Iterator[None]:
    """Within the block the decoders log nothing from this thread; of bad files, errors say it."""
    here = threading.get_ident()

    def is_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    loggers = [logging.getLogger(name) for name in ("tifffile", "imagecodecs")]
    for logger in loggers:
        logger.addFilter(is_elsewhere)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_elsewhere)


def _is_known(page: TiffPage) -> bool:
    photometric, bits, planes = int(page.photometric), page.bitspersample, page.planarconfig == 2
    colours = _COLOURS.get(photometric, 99)
    extra = page.samplesperpixel - colours
    if page.compression not in _LOSSLESS or page.sampleformat != 1 or page.imagedepth != 1:
        return False
    if extra < 0 or (colours == 1 and extra > 1):
        return False
    if bits == 12:
        return page.samplesperpixel == 1 and photometric != _PALETTE
    return bits == 16 or (bits == 8 and photometric <= _RGB and (planes or extra > 0))


def _samples(page: TiffPage) -> Levels:
    """The values as the file has them, `(H, W, samples)`. Raises ValueError if some are missing."""
    ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
    if max(ends, default=0) > page.parent.filehandle.size:  # decoders may not mind
        raise ValueError("truncated")
    values: Any = page.asarray(squeeze=False)
    _, _, height, width, _ = values.shape  # planes, depth, height, width, samples within a plane
    values = values[:, 0].transpose(1, 2, 0, 3).reshape(height, width, -1)
    if page.bitspersample == 12:
        return stretched(values, _WHITE12)
    return values.astype(f"u{values.itemsize}", copy=False)  # in the machine's byte order


def _photo(page: TiffPage, values: Levels) -> Photo:
    colours = _COLOURS[int(page.photometric)]
    colour, extra, alpha = values[..., :colours], values[..., colours:], None
    # A single extra channel of which the file says nothing is alpha.
    kinds = [int(kind) for kind in page.extrasamples] or [_UNASSOCIATED] * (extra.shape[2] == 1)
    number = next((n for n, kind in enumerate(kinds) if kind in _ALPHA), extra.shape[2])
    if number < extra.shape[2]:
        alpha = np.ascontiguousarray(extra[..., number : number + 1])
        colour = _divided(colour, alpha) if kinds[number] == _ASSOCIATED else colour
    icc = None if page.photometric == _CMYK else page.tags.valueof(_ICC)
    frames = 1
    with suppress(Exception):  # later ones may be damaged
        frames = len(page.parent.pages)
    colour = np.ascontiguousarray(_to_rgb(page, colour))
    photo = Photo(colour, alpha, icc if isinstance(icc, bytes) else None, _dpi(page), None, frames)
    return photo.turned(page.tags.valueof(_ORIENTATION, 1))


def _divided(colour: Levels, alpha: Levels) -> Levels:
    """Colours that were multiplied by alpha; black where nothing is left of them."""
    white, by = np.iinfo(colour.dtype).max, np.maximum(alpha, 1).astype(np.uint32)
    full = (colour.astype(np.uint32) * np.uint32(white) + by // 2) // by
    return np.where(alpha == 0, 0, np.minimum(full, white)).astype(colour.dtype)


def _to_rgb(page: TiffPage, colour: Levels) -> Levels:
    """Grey or RGB."""
    white = np.iinfo(colour.dtype).max
    if page.photometric == _WHITE_IS_ZERO:
        return white - colour
    if page.photometric == _PALETTE:
        colours: Any = page.colormap
        return colours[:, colour[..., 0]].transpose(1, 2, 0)
    if page.photometric == _CMYK:  # as Pillow does it in 8 bits
        rest, key = (white - part.astype(np.uint32) for part in (colour[..., :3], colour[..., 3:]))
        return ((rest * key + white // 2) // white).astype(colour.dtype)
    return colour


def _dpi(page: TiffPage) -> tuple[float, float] | None:
    try:
        factor = _PER_INCH[int(page.tags.valueof(_UNIT, 2))]
        across, down = (page.tags.valueof(code) for code in _RESOLUTION)
        dpi = across[0] / across[1] * factor, down[0] / down[1] * factor
    except (TypeError, ValueError, LookupError, ZeroDivisionError):  # left out, or of another type
        return None
    return dots_per_inch({"dpi": dpi})

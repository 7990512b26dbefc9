"""TIFF files of 16 bits or of separate planes, which Pillow reads in 8, wrongly, or not at all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from drc.core.errors import DataError
from drc.data.levels import Levels, upright

if TYPE_CHECKING:
    from tifffile import TiffPage

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 2, 3, 5
_COLOURS = {_WHITE_IS_ZERO: 1, 1: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}  # samples, without the extra
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, PackBits, LZMA, Zstandard
_ASSOCIATED, _UNASSOCIATED = 1, (2, 999)  # 999 is what CorelDraw writes
_ORIENTATION, _ICC, _UNIT, _RESOLUTION = 274, 34675, 296, (282, 283)
_PER_INCH = {2: 1.0, 3: 2.54}  # unit of the resolution -> of them in an inch


@dataclass(frozen=True, eq=False)
class Scan:
    """The first page of a TIFF file, upright.

    Attributes:
        levels: `(H, W, C)`, uint8 or uint16, full range: grey, grey and alpha, RGB or RGBA. Alpha
            is not associated: colours are not multiplied by it.
        icc: colour profile.
        dpi: pixels per inch, across and down.
        pages: in the file, of which this is the first.
    """

    levels: Levels
    icc: bytes | None
    dpi: tuple[float, float] | None
    pages: int


def read_tiff(path: Path | str) -> Scan | None:
    """Read a TIFF file of 16-bit integers, or of 8 with planes of their own or extra channels.

    White is the largest level, also where the file says that it is 0; palettes are looked up, CMYK
    becomes RGB without its profile, and extra channels that are no alpha are left out.

    Returns:
        None for files of another kind, which are left to Pillow, and for those that are no TIFF.

    Raises:
        DataError: truncated, damaged or too large.
    """
    with _opened(path) as page:
        if page is None:
            return None
        _check_size(path, page)
        with _unreadable(path):
            return _scan(page, _samples(page))


def tiff_size(path: Path | str) -> tuple[int, int] | None:
    """Height and width of what `read_tiff` gives, from the header; None where that is None."""
    with _opened(path) as page:
        if page is None:
            return None
        turned = page.tags.valueof(_ORIENTATION, 1) in (5, 6, 7, 8)
        sides = int(page.imagelength), int(page.imagewidth)
        return sides[::-1] if turned else sides


@contextmanager
def _opened(path: Path | str) -> Iterator[TiffPage | None]:
    """The first page of a file that is read here, else None."""
    if not is_tiff(path):
        yield None
        return
    import tifffile  # rarely needed

    with ExitStack() as stack:
        stack.enter_context(_silenced(logging.getLogger("tifffile")))
        try:
            file = stack.enter_context(tifffile.TiffFile(path))
        except Exception:  # Pillow tells better what is wrong, or does better
            yield None
            return
        with _unreadable(path):
            page = file.pages.first
            known = _is_known(page)
        yield page if known else None


@contextmanager
def _unreadable(path: Path | str) -> Iterator[None]:
    """What tifffile raises within the block, of which it tells nothing, becomes a `DataError`."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: unreadable image ({reason}); replace or remove it") from error


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    """Within the block it says nothing from this thread; of unreadable files, errors tell."""
    here = threading.get_ident()

    def is_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger.addFilter(is_elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(is_elsewhere)


def is_tiff(path: Path | str) -> bool:
    """Whether a file begins as TIFF files do; False for one that cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


def _is_known(page: TiffPage) -> bool:
    photometric, bits, planes = int(page.photometric), page.bitspersample, page.planarconfig == 2
    colours = _COLOURS.get(photometric, 99)
    extra = page.samplesperpixel - colours
    if page.compression not in _LOSSLESS:
        return False
    if page.sampleformat != 1 or page.imagedepth != 1 or extra < 0 or (colours == 1 and extra > 1):
        return False
    return bits == 16 or (bits == 8 and photometric <= _RGB and (planes or extra > 0))


def _check_size(path: Path | str, page: TiffPage) -> None:
    pixels, most = page.imagewidth * page.imagelength, Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > 2 * most:
        raise DataError(f"{path}: the image is too large to read; split it into tiles")


def _samples(page: TiffPage) -> Levels:
    """The values as the file has them, `(H, W, samples)`. Raises ValueError if some are missing."""
    ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
    if max(ends, default=0) > page.parent.filehandle.size:  # decoders may not mind
        raise ValueError("truncated")
    values: Any = page.asarray(squeeze=False)
    _, _, height, width, _ = values.shape  # planes, depth, height, width, samples within a plane
    values = values[:, 0].transpose(1, 2, 0, 3).reshape(height, width, -1)
    return values.astype(np.uint8 if values.itemsize == 1 else np.uint16, copy=False)


def _scan(page: TiffPage, values: Levels) -> Scan:
    colours = _COLOURS[int(page.photometric)]
    colour, alpha = values[..., :colours], None
    kinds = _extra_kinds(page, values.shape[2] - colours)
    for number, kind in enumerate(kinds, colours):
        if kind == _ASSOCIATED or kind in _UNASSOCIATED:
            alpha = values[..., number : number + 1]
            colour = _divided(colour, alpha) if kind == _ASSOCIATED else colour
            break
    colour = _to_rgb(page, colour)
    levels = colour if alpha is None else np.concatenate([colour, alpha], axis=2)
    icc = None if page.photometric == _CMYK else page.tags.valueof(_ICC)
    icc = icc if icc and isinstance(icc, bytes) else None
    turned = upright(levels, page.tags.valueof(_ORIENTATION, 1))
    return Scan(turned, icc, _dpi(page), _pages(page))


def _pages(page: TiffPage) -> int:
    with suppress(Exception):  # later ones may be damaged
        return len(page.parent.pages)
    return 1


def _extra_kinds(page: TiffPage, count: int) -> list[int]:
    """What the file says of its extra channels; a single one of which it says nothing is alpha."""
    kinds = [int(kind) for kind in page.extrasamples]
    return kinds[:count] if kinds else [_UNASSOCIATED[0]] * (count == 1)


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
        return np.ascontiguousarray(colours[:, colour[..., 0]].transpose(1, 2, 0))
    if page.photometric == _CMYK:  # as Pillow does it in 8 bits
        rest, key = (white - part.astype(np.uint32) for part in (colour[..., :3], colour[..., 3:]))
        return ((rest * key + white // 2) // white).astype(colour.dtype)
    return colour


def _dpi(page: TiffPage) -> tuple[float, float] | None:
    try:
        factor = _PER_INCH[int(page.tags.valueof(_UNIT, 2))]
        across, down = (page.tags.valueof(code) for code in _RESOLUTION)
        return across[0] / across[1] * factor, down[0] / down[1] * factor
    except (TypeError, ValueError, LookupError, ZeroDivisionError):  # left out, or of another type
        return None


__all__ = ["Scan", "is_tiff", "read_tiff", "tiff_size"]

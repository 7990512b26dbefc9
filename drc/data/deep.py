"""16-bit colour, which Pillow decodes to its high bytes alone, and writes not at all."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from drc.errors import DataError

Levels = npt.NDArray[np.unsignedinteger[Any]]
"""8 or 16 bits, full range."""

_SWAPPED = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}
_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type
_PNG_SUB = 1
_INCH = 0.0254


def open_image(path: Path | str) -> Image.Image:
    """`Image.open`, without its warning of images of up to twice the pixels that it doubts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path)


def read_colour16(path: Path | str, image: Image.Image) -> Levels | None:
    """The 16-bit values of an image file that Pillow opened and has not decoded yet.

    Decoding in swapped byte order gives the low bytes that Pillow drops.

    Args:
        path: the file, which is opened once more.
        image: what `Image.open` gave for it.

    Returns:
        `(H, W, C)`: grey and alpha, RGB, or RGBA; None for files that hold something else.
    """
    raw, _, order = _raw_mode(image).partition(";16")
    if raw == "LA" and image.mode == "RGBA":  # four bytes a pixel: as they are
        _decode_as(image, "RGBA")
        return np.ascontiguousarray(image).view(">u2").astype(np.uint16)
    if raw not in ("RGB", "RGBA") or raw != image.mode or order not in _SWAPPED:
        return None
    high = np.asarray(image).astype(np.uint16)
    with open_image(path) as again:
        _decode_as(again, f"{raw};16{_SWAPPED[order]}")
        return high * 256 + np.asarray(again)


def read_tiff(path: Path | str) -> Levels:
    """The first page of a TIFF file of a kind that Pillow does not know, such as 16-bit grey alpha.

    Returns:
        `(H, W, C)`, uint8 or uint16, of 1 to 4 channels.

    Raises:
        DataError: not a TIFF file, or of a compression or kind that is not read.
    """
    import tifffile  # rarely needed

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            levels = page.asarray()
            planes = page.planarconfig == 2 and levels.ndim == 3
    # What tifffile raises for files of all sorts is not told by it.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: unreadable image ({reason}); replace or remove it") from error
    levels = np.moveaxis(levels, 0, -1) if planes else levels
    levels = levels[..., None] if levels.ndim == 2 else levels
    known = levels.dtype in (np.uint8, np.uint16) and levels.ndim == 3 and levels.shape[2] <= 4
    if not known or int(page.photometric) not in (1, 2):
        raise DataError(f"{path}: a TIFF image of an unknown kind; save it as PNG")
    return levels


def encode_png16(
    levels: Levels, icc: bytes | None = None, dpi: tuple[float, float] | None = None
) -> bytes:
    """A 16-bit PNG file.

    Args:
        levels: `(H, W, C)`, C of 1 to 4.
        icc: colour profile.
        dpi: pixels per inch, across and down.
    """
    height, width, channels = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR[channels], 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header)]
    if icc is not None:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if dpi is not None:
        across, down = (round(value / _INCH) for value in dpi)
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    packer = zlib.compressobj()
    data = b"".join(packer.compress(_filtered(row)) for row in levels) + packer.flush()
    return b"".join([*parts, _chunk(b"IDAT", data), _chunk(b"IEND", b"")])


def encode_tiff16(
    levels: Levels, icc: bytes | None = None, dpi: tuple[float, float] | None = None
) -> bytes:
    """A 16-bit TIFF file, compressed without loss. Arguments as for `encode_png16`."""
    import tifffile

    channels = levels.shape[2]
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        levels[..., 0] if channels == 1 else levels,
        photometric="minisblack" if channels < 3 else "rgb",
        planarconfig=None if channels == 1 else "contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        iccprofile=icc,
        resolution=dpi,
        resolutionunit="INCH" if dpi else None,
        metadata=None,
    )
    return file.getvalue()


def _raw_mode(image: Image.Image) -> str:
    """How the file holds its pixels, in Pillow's words, such as `RGB;16B`."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    args = tiles[0].args
    return str(args[0] if isinstance(args, tuple) and args else args)


def _decode_as(image: Any, mode: str) -> None:
    """Have Pillow take the pixels of an image that is not decoded yet for those of another mode."""

    def args(tile: Any) -> Any:
        return (mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode

    image.tile = [tile._replace(args=args(tile)) for tile in image.tile]


def _filtered(row: Levels) -> bytes:
    """A line of a PNG file: as differences from the pixel to the left, which compress better."""
    data = row.astype(">u2").tobytes()
    values = np.frombuffer(data, np.uint8)
    step = 2 * row.shape[-1]
    differences = values.copy()
    differences[step:] -= values[:-step]
    return bytes([_PNG_SUB]) + differences.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


__all__ = [
    "Levels", "encode_png16", "encode_tiff16", "open_image", "read_colour16", "read_tiff",
]  # fmt: skip

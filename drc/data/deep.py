"""More than 8 bits, of which Pillow decodes but the high ones in colour, and writes none."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from drc.core.errors import DataError
from drc.data.levels import Levels, with_transparent

_WHITE16 = 65535
_WHITE12 = 4095
_PHOTOMETRIC, _BITS, _PLANES = 262, 258, 284  # tags of TIFF files
_SWAPPED = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}
_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type
_PNG_SUB = 1
_INCH = 0.0254
_HEAD = 1 << 16  # bytes that hold the headers of an image
_MARKS = {"JPEG2000": (b"\xff\x4f\xff\x51", 42), "AVIF": (b"pixi", 9), "SGI": (b"\x01\xda", 3)}
"""Where files of a format have their bits: a mark, and how far behind its first byte."""


def open_image(path: Path | str) -> Image.Image:
    """`Image.open`, without warnings: of damaged EXIF data, or of twice the pixels it likes."""
    with no_warnings():
        return Image.open(path)


@contextmanager
def no_warnings() -> Iterator[None]:
    """Within the block Pillow warns of nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_deep(path: Path | str, image: Image.Image) -> Levels | None:
    """The 16-bit values of an image file that Pillow opened and has not decoded yet.

    Args:
        path: the file, which is opened once more.
        image: what `Image.open` gave for it.

    Returns:
        `(H, W, C)`: grey, RGB, or one of them with alpha, which a colour that the file declares
        transparent becomes; None for files that hold something else.

    Raises:
        DataError: integers that 16 bits do not hold, or a truncated file.
    """
    if image.mode.startswith("I"):
        return read_grey16(path, image)
    levels = _read_ppm16(path, image) if image.format == "PPM" else _read_colour16(path, image)
    return None if levels is None else _with_alpha(levels, image)


def read_grey16(path: Path | str, image: Image.Image) -> Levels:
    """The values of a grey image of more than 8 bits, `(H, W, 1)`, or 2 with alpha.

    Raises:
        DataError: there are some that 16 bits do not hold.
    """
    values = np.asarray(image)
    if values.min() < 0 or values.max() > _WHITE16:
        raise DataError(f"{path}: its values exceed 16 bits; save it as an 8 or 16-bit image")
    values = values[..., None].astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_BITS) == (12,):
        values = _stretched(values, _WHITE12)
    if tags.get(_PHOTOMETRIC) == 0:  # Pillow inverts 8 bits alone
        values = _WHITE16 - values
    return _with_alpha(values, image)


def bits_not_read(path: Path | str, image: Image.Image) -> int | None:
    """The bits of the file's values, where they are more than the 8 that Pillow decodes."""
    if image.format in _MARKS:
        mark, behind = _MARKS[image.format]
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
        place = head.find(mark) + behind
        found = head[place] if mark in head and place < len(head) else 0
        bits = {"JPEG2000": (found & 127) + 1, "SGI": 8 * found}.get(image.format, found)
    elif image.format == "PPM":
        bits = max((part for part in _arguments(image) if isinstance(part, int)), default=0)
        bits = bits.bit_length()
    else:
        bits = max(getattr(image, "tag_v2", {}).get(_BITS, (8,)))
    return bits if bits > 8 else None


def _read_colour16(path: Path | str, image: Image.Image) -> Levels | None:
    """Colour of 16 bits: decoding in swapped byte order gives the low bytes that Pillow drops."""
    raw, _, order = raw_mode(image).partition(";16")
    if raw == "LA" and image.mode == "RGBA":  # four bytes a pixel: as they are
        _decode_as(image, "RGBA")
        return np.ascontiguousarray(image).view(">u2").astype(np.uint16)
    planes = getattr(image, "tag_v2", {}).get(_PLANES) == 2  # which ignore the mode
    if raw not in ("RGB", "RGBA") or raw != image.mode or order not in _SWAPPED or planes:
        return None
    high = np.asarray(image).astype(np.uint16)
    with open_image(path) as again:
        _decode_as(again, f"{raw};16{_SWAPPED[order]}")
        return high * 256 + np.asarray(again)


def _read_ppm16(path: Path | str, image: Any) -> Levels | None:
    """Colour of a binary PPM file whose white is more than 255."""
    kind, _, offset, (_, *most) = image.tile[0] if image.mode == "RGB" else ("", 0, 0, ("",))
    if kind != "ppm" or most[0] < 256:
        return None
    shape = (image.height, image.width, 3)
    values = np.fromfile(path, ">u2", int(np.prod(shape)), offset=offset)
    if values.size < np.prod(shape):
        raise DataError(f"{path}: unreadable image (truncated); replace or remove it")
    return _stretched(values.reshape(shape), most[0])


def _stretched(values: npt.NDArray[Any], white: int) -> npt.NDArray[np.uint16]:
    """Values of another white in 16 bits."""
    wide = np.minimum(values.astype(np.uint32), white)
    return ((wide * _WHITE16 + white // 2) // white).astype(np.uint16)


def _with_alpha(levels: Levels, image: Image.Image) -> Levels:
    transparent = image.info.get("transparency")
    if transparent is None or levels.shape[2] not in (1, 3):
        return levels
    return with_transparent(levels, transparent)


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


def raw_mode(image: Image.Image) -> str:
    """How the file of an image that is not decoded yet holds its pixels, in Pillow's words.

    Such as `RGB;16B`.
    """
    first = next(iter(_arguments(image)), "")
    return str(first)


def _arguments(image: Image.Image) -> tuple[Any, ...]:
    """What Pillow's decoder is told."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ()
    return args if isinstance(args, tuple) else (args,)


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
    "bits_not_read", "encode_png16", "encode_tiff16", "no_warnings", "open_image", "raw_mode",
    "read_deep", "read_grey16",
]  # fmt: skip

"""Photos in files of the usual formats: read whole, and written whole or not at all."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from drc.core.errors import DataError, UsageError
from drc.core.files import write_bytes
from drc.data.photo import Levels, Photo, described, photo_of, stretched, without_axis
from drc.data.tiff import is_tiff, read_tiff, silent_decoders

DEFAULT_QUALITY = 95
_INCH = 0.0254
_PNG_HEADER = 33  # bytes of the signature and of IHDR
_OF_FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")  # others have previews or layers
_HEAD = 1 << 16  # bytes that hold the headers of an image
_MARKS = {"JPEG2000": (b"\xff\x4f\xff\x51", 42), "AVIF": (b"pixi", 9), "SGI": (b"\x01\xda", 3)}
"""Where files of a format have their bits: a mark, and how far behind its first byte."""


@dataclass(frozen=True)
class Format:
    """What an image format can hold.

    Attributes:
        name: as Pillow calls it.
        suffixes: of its files, the usual one first.
        alpha, deep: whether it holds alpha, and 16 bits.
        most: the longest side, in pixels; 0 for no limit.
    """

    name: str
    suffixes: tuple[str, ...]
    alpha: bool = True
    deep: bool = False
    most: int = 0


FORMATS = {
    "png": Format("PNG", (".png",), deep=True),
    "jpg": Format("JPEG", (".jpg", ".jpeg"), alpha=False, most=65500),
    "webp": Format("WEBP", (".webp",), most=16383),
    "tiff": Format("TIFF", (".tiff", ".tif"), deep=True),
    "bmp": Format("BMP", (".bmp",)),
    "ppm": Format("PPM", (".ppm",), alpha=False),
}
"""Name -> format."""

OFFERED = ("png", "jpg", "webp", "tiff")
"""The formats that `--format` takes; the others are kept where the input has them."""

_OF_SUFFIX = {suffix: kind for kind in FORMATS.values() for suffix in kind.suffixes}


def format_of(path: Path) -> Format | None:
    """The format that a file's name tells; None for another."""
    return _OF_SUFFIX.get(path.suffix.lower())


def read_photo(path: Path | str, upright: bool = True) -> Photo:
    """Read an image file, converted as `photo_of` says; of several pages or frames the first.

    Pillow decodes what has 8 bits, imagecodecs PNG of 16 bits or with a transparent colour, and
    tifffile the TIFF files of `read_tiff`.

    Args:
        path: the file.
        upright: whether EXIF orientation is applied; in TIFF files it always is.

    Raises:
        DataError: the file is missing, truncated, too large, not an image, or has floating-point
            values.
    """
    photo = read_tiff(path)
    if photo is not None:
        return photo
    with opened(path) as image:
        bits, deep = bits_not_read(path, image), None
        if image.format == "PNG":
            deep = _read_png(path, image)
        elif image.format == "PPM":
            deep = _read_ppm16(path, image)
        if deep is None:
            photo = photo_of(image, str(path), upright)
        else:
            photo = described(deep, image, upright)
        bits = bits if photo.white == 255 else None
        return replace(photo, file_bits=bits, frames=_frames(image))


@contextmanager
def opened(path: Path | str) -> Iterator[Image.Image]:
    """Open a file by Pillow, without its warnings; what it raises in the block is a `DataError`."""
    try:
        with warnings.catch_warnings():
            # Of damaged EXIF data, or of twice the pixels that it likes.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(path) as image:
                yield image
    except FileNotFoundError:
        raise DataError(f"{path}: no such image file") from None
    except UnidentifiedImageError:
        what = "not an image, or its header is damaged"
        if is_tiff(path):
            what = "a TIFF image of a kind that is not read, or damaged; save it as PNG"
        raise DataError(f"{path}: {what}") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: the image is too large to read; split it into tiles") from None
    except (
        OSError, EOFError, RuntimeError, SyntaxError, ValueError, struct.error, zlib.error,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: unreadable image ({reason}); replace or remove it") from error


def bits_not_read(path: Path | str, image: Image.Image) -> int | None:
    """The bits of a file's values where they are more than 8, of formats that Pillow reads in 8.

    `image` is the file, opened and not decoded yet.
    """
    bits = 8
    if image.format == "PPM":
        bits = max(_whites(image), default=0).bit_length()
    elif image.format == "TIFF":
        bits = max(getattr(image, "tag_v2", {}).get(258, (8,)))
    elif image.format in _MARKS:
        mark, behind = _MARKS[image.format]
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
        found = head[head.find(mark) + behind :][:1] if mark in head else b"\0"
        bits = int.from_bytes(found, "big")
        bits = {"JPEG2000": (bits & 127) + 1, "SGI": 8 * bits}.get(image.format, bits)
    return bits if bits > 8 else None


def _read_png(path: Path | str, image: Image.Image) -> Levels | None:
    """What Pillow cuts to 8 bits, or has no alpha for where the file names a transparent colour."""
    content = Path(path).read_bytes()
    is_deep = content[24] == 16
    if not is_deep and "transparency" not in image.info:
        return None
    import imagecodecs  # rarely needed

    with silent_decoders():
        levels = imagecodecs.png_decode(content)
    return levels if levels.ndim == 3 else levels[..., None]


def _read_ppm16(path: Path | str, image: Any) -> Levels | None:
    """Colour of a binary PPM file whose white is more than 255."""
    white = max(_whites(image), default=0)
    if image.mode != "RGB" or image.tile[0][0] != "ppm" or white < 256:
        return None
    shape = (image.height, image.width, 3)
    values = np.fromfile(path, ">u2", int(np.prod(shape)), offset=image.tile[0][2])
    if values.size < np.prod(shape):
        raise ValueError("truncated")
    return stretched(values.reshape(shape), white)


def _whites(image: Any) -> list[int]:
    """What the header of a PPM file says of white."""
    return [part for part in image.tile[0][3] if isinstance(part, int)] if image.tile else []


def _frames(image: Image.Image) -> int:
    """How many frames or pages there are, of which the first is decoded already."""
    with suppress(Exception):  # later ones may be damaged, of which Pillow tells in many ways
        return int(getattr(image, "n_frames", 1)) if image.format in _OF_FRAMES else 1
    return 1


def losses(photo: Photo, path: Path) -> list[str]:
    """What of a photo the format of `path` cannot hold, in words."""
    kind = _format(path)
    lost = ["alpha"] if photo.alpha is not None and not kind.alpha else []
    return lost + (["16 bits"] if photo.white > 255 and not kind.deep else [])


def write_photo(path: Path, photo: Photo, quality: int = DEFAULT_QUALITY) -> None:
    """Write a photo in the format of the path's suffix, with profile and DPI where it holds them.

    What the format cannot hold is left out: alpha, or the low bits of 16, by rounding.

    Args:
        path: the file; missing folders are made.
        quality: 1 to 100, of JPEG, with full colour resolution, and of WebP, which at 100 is
            lossless. The other formats are lossless.

    Raises:
        UsageError: a suffix of no format, or a quality out of range.
        DataError: the image is too large for the format.
        RunError: the file cannot be written.
    """
    check_quality(quality)
    kind = _format(path)
    if kind.most and max(photo.size) > kind.most:
        raise DataError(
            f"{path}: {kind.name} holds at most {kind.most} pixels a side, and this image is "
            f"{photo.size[1]}x{photo.size[0]}; use --format png"
        )
    if not kind.alpha:
        photo = Photo(photo.levels, None, photo.icc, photo.dpi)
    if photo.white > 255 and kind.deep:
        encode = encode_png16 if kind.name == "PNG" else encode_tiff16
        write_bytes(path, encode(photo.joined(), photo.icc, photo.dpi))
    else:
        write_bytes(path, _encode(path, photo, kind, quality))


def check_quality(quality: int) -> None:
    """Raise UsageError for a quality out of range."""
    if not 1 <= quality <= 100:
        raise UsageError(f"--quality is {quality}; it is 1 to 100")


def _encode(path: Path, photo: Photo, kind: Format, quality: int) -> bytes:
    image = photo.to_pil()
    if kind.name == "BMP" and image.mode == "LA":
        image = image.convert("RGBA")
    options: dict[str, Any] = {"icc_profile": photo.icc} if photo.icc else {}
    if photo.dpi is not None:
        options["dpi"] = photo.dpi
    if kind.name == "JPEG":
        options |= {"quality": quality, "subsampling": 0}
    elif kind.name == "WEBP":
        options |= {"quality": quality, "lossless": quality == 100, "exact": True}
    elif kind.name == "TIFF":
        options["compression"] = "tiff_deflate"
    file = io.BytesIO()
    try:
        image.save(file, format=kind.name, **options)
    except (OSError, ValueError, struct.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be written as {kind.name} ({reason})") from error
    return file.getvalue()


def encode_png16(
    levels: Levels, icc: bytes | None = None, dpi: tuple[float, float] | None = None
) -> bytes:
    """A 16-bit PNG file.

    Args:
        levels: `(H, W, C)`, C of 1 to 4.
        icc: colour profile.
        dpi: pixels per inch, across and down.
    """
    import imagecodecs

    content = imagecodecs.png_encode(without_axis(levels))
    chunks = [] if icc is None else [_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))]
    if dpi is not None:
        across, down = (round(value / _INCH) for value in dpi)
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    return b"".join([content[:_PNG_HEADER], *chunks, content[_PNG_HEADER:]])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_tiff16(
    levels: Levels, icc: bytes | None = None, dpi: tuple[float, float] | None = None
) -> bytes:
    """A 16-bit TIFF file, compressed without loss. Arguments as for `encode_png16`."""
    import tifffile

    channels = levels.shape[2]
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        without_axis(levels),
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


def _format(path: Path) -> Format:
    kind = format_of(path)
    if kind is None:
        names = ", ".join(sorted(_OF_SUFFIX))
        raise UsageError(f"{path}: images are not written as {path.suffix!r}; use one of {names}")
    return kind

"""Write photos in the formats that the commands offer, whole or not at all."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drc.core.errors import DataError, UsageError
from drc.core.files import write_bytes
from drc.data.deep import encode_png16, encode_tiff16
from drc.data.photo import Photo

DEFAULT_QUALITY = 95


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


def _format(path: Path) -> Format:
    kind = format_of(path)
    if kind is None:
        names = ", ".join(sorted(_OF_SUFFIX))
        raise UsageError(f"{path}: images are not written as {path.suffix!r}; use one of {names}")
    return kind


__all__ = [
    "DEFAULT_QUALITY", "FORMATS", "OFFERED", "Format", "check_quality", "format_of", "losses",
    "write_photo",
]  # fmt: skip

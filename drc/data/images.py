"""Image files: read anything Pillow opens as 8-bit RGB, write without leaving half a file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from drc.artifacts.atomic import atomic_write
from drc.errors import DataError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""File name endings (in lower case) that count as images when a folder is listed."""

_WHITE16 = 65535
_PER_LEVEL = 257  # 65535 / 255: 16-bit values per 8-bit level


def read_image(path: Path | str) -> Tensor:
    """Read an image file as 8-bit RGB.

    Grey becomes RGB with equal channels, palettes are looked up, alpha is dropped, and 16-bit
    values are divided by 257 and rounded. EXIF orientation is not applied.

    Returns:
        `(3, H, W)`, uint8.

    Raises:
        DataError: the file is missing, truncated, not an image, or of an unsupported kind.
    """
    with _opened(path) as image:
        if image.mode in ("RGB", "RGBA") and _is_16bit(image):
            levels = _read_rgb16(path, image)
        elif image.mode.startswith("I"):
            levels = _read_grey16(path, image)
        elif image.mode == "F":
            raise DataError(f"{path}: floating-point images have no known white; save it as PNG")
        else:
            levels = np.asarray(image.convert("RGB"))
    return torch.from_numpy(levels.transpose(2, 0, 1).copy())


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width in pixels, from the header alone.

    Raises:
        DataError: the file is missing or not an image.
    """
    with _opened(path) as image:
        return image.height, image.width


def write_image(path: Path | str, image: Tensor) -> None:
    """Write `(3, H, W)` uint8 in the format of the path's suffix; all of it or nothing.

    Raises:
        DataError: the tensor has another shape or type, or Pillow cannot write the suffix.
        RunError: the file cannot be written.
    """
    path = Path(path)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise DataError(
            f"an image to write is (3, H, W) uint8, not {tuple(image.shape)} {image.dtype}"
        )
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise DataError(f"{path}: images cannot be written as {path.suffix!r}; use .png")
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().contiguous().numpy())
    with atomic_write(path) as temporary:
        picture.save(temporary, format=kind)


def to_unit(image: Tensor) -> Tensor:
    """8-bit levels as float32 in 0..1, in any shape."""
    return image.to(torch.float32) / 255.0


def to_uint8(image: Tensor) -> Tensor:
    """Values in 0..1 as 8-bit levels, rounded and clamped, in any shape."""
    return (image.to(torch.float32) * 255.0).round().clamp(0, 255).to(torch.uint8)


@contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    """Open a file and turn what Pillow raises, then or while decoding, into a `DataError`."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise DataError(f"{path}: no such image file") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image, or its header is damaged") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: the image is too large to read; split it into tiles") from None
    except (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: unreadable image ({reason}); replace or remove it") from error


def _is_16bit(image: Image.Image) -> bool:
    tiles = getattr(image, "tile", [])
    return bool(tiles) and str(tiles[0].args).endswith(";16B")


def _read_rgb16(path: Path | str, image: Image.Image) -> npt.NDArray[np.uint8]:
    """Pillow keeps the high byte of 16-bit colour; decoding in swapped order gives the low one."""
    high = np.asarray(image)[..., :3].astype(np.uint16)
    with Image.open(path) as swapped:
        tile = swapped.tile[0]
        swapped.tile = [tile._replace(args=str(tile.args).replace("16B", "16L"))]
        try:
            low = np.asarray(swapped)[..., :3]
        except ValueError:  # grey with alpha has no swapped order: half a level at most is lost
            return high.astype(np.uint8)
    return _to_8bit(high * 256 + low)


def _read_grey16(path: Path | str, image: Image.Image) -> npt.NDArray[np.uint8]:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > _WHITE16:
        raise DataError(f"{path}: its values exceed 16 bits; save it as an 8 or 16-bit image")
    return np.repeat(_to_8bit(values)[..., None], 3, axis=2)


def _to_8bit(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    return ((values.astype(np.uint32) + _PER_LEVEL // 2) // _PER_LEVEL).astype(np.uint8)


__all__ = ["SUFFIXES", "image_size", "read_image", "to_uint8", "to_unit", "write_image"]

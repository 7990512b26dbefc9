"""Image files as 8-bit RGB, whatever they hold; written without leaving half a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drc.core.errors import DataError
from drc.data.photo import Photo
from drc.data.photo_files import format_of, opened, read_photo, write_photo
from drc.data.tiff import tiff_size

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""File name endings (in lower case) that count as images when a folder is listed."""


def read_image(path: Path | str) -> Tensor:
    """Read an image file as 8-bit RGB.

    Grey becomes RGB with equal channels, palettes are looked up, alpha is dropped, and 16-bit
    values are divided by 257 and rounded. EXIF orientation is applied in TIFF files alone.

    Returns:
        `(3, H, W)`, uint8, contiguous.

    Raises:
        DataError: the file is missing, truncated, not an image, or of an unsupported kind.
    """
    return read_view(path).contiguous()


def read_view(path: Path | str) -> Tensor:
    """As `read_image`, for who needs parts alone: a view of `(H, W, 3)`, which costs no copy."""
    levels = read_photo(path, upright=False).in_8bit().levels
    return torch.from_numpy(levels).permute(2, 0, 1).expand(3, -1, -1)


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width in pixels, from the header alone.

    Raises:
        DataError: the file is missing or not an image.
    """
    size = tiff_size(path)
    if size is not None:
        return size
    with opened(path) as image:
        return image.height, image.width


def intact_size(path: Path | str) -> tuple[int, int]:
    """Height and width of an image file that is whole: PNG by its checksums, others by decoding.

    Raises:
        DataError: as `read_image`.
    """
    if Path(path).suffix.lower() == ".png":
        with opened(path) as image:
            image.verify()
            return image.height, image.width
    _, height, width = read_view(path).shape
    return height, width


def write_image(path: Path | str, image: Tensor) -> None:
    """Write `(3, H, W)` uint8 in the format of the path's suffix; all of it or nothing.

    Raises:
        DataError: the tensor has another shape or type, or the suffix is of no format to write.
        RunError: the file cannot be written.
    """
    path = Path(path)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise DataError(
            f"an image to write is (3, H, W) uint8, not {tuple(image.shape)} {image.dtype}"
        )
    if format_of(path) is None:
        raise DataError(f"{path}: images cannot be written as {path.suffix!r}; use .png")
    write_photo(path, Photo(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())))


def to_unit(image: Tensor) -> Tensor:
    """8-bit levels as float32 in 0..1, in any shape."""
    return image.to(torch.float32) / 255.0


def to_uint8(image: Tensor) -> Tensor:
    """Values in 0..1 as 8-bit levels, rounded and clamped, in any shape."""
    return (image.to(torch.float32) * 255.0).round().clamp(0, 255).to(torch.uint8)

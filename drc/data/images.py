"""Image files as 8-bit RGB, whatever they hold; written without leaving half a file."""

from __future__ import annotations

import io
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

from drc.core.errors import DataError
from drc.core.files import write_bytes
from drc.data.deep import no_warnings, open_image, read_deep
from drc.data.levels import to_8bit
from drc.data.tiff import is_tiff, read_tiff, tiff_size

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""File name endings (in lower case) that count as images when a folder is listed."""


class Picture:
    """A decoded image file. Windows of it come without the cost of converting the rest.

    Grey becomes RGB with equal channels, palettes are looked up, alpha is dropped, and 16-bit
    values are divided by 257 and rounded. EXIF orientation is applied in TIFF files alone.

    Attributes:
        height, width: in pixels.

    Args:
        source: an image file, or `(3, H, W)` uint8 that is decoded already.

    Raises:
        DataError: the file is missing, truncated, not an image, or of an unsupported kind.
    """

    def __init__(self, source: Path | str | Tensor) -> None:
        self._decoded = source if isinstance(source, Tensor) else _decode(source)
        if isinstance(self._decoded, Tensor):
            self.height, self.width = self._decoded.shape[-2:]
        else:
            self.height, self.width = self._decoded.height, self._decoded.width

    def whole(self) -> Tensor:
        """The image: `(3, H, W)`, uint8, contiguous."""
        return self.window(0, 0, self.height, self.width)

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """The part from row `top` and column `left` on: `(3, height, width)`, uint8."""
        if isinstance(self._decoded, Tensor):
            return self._decoded[:, top : top + height, left : left + width]
        part = self._decoded.crop((left, top, left + width, top + height))
        return _to_tensor(np.asarray(part if part.mode == "RGB" else part.convert("RGB")))


def read_image(path: Path | str) -> Tensor:
    """Read an image file as 8-bit RGB, converted as `Picture` says.

    Returns:
        `(3, H, W)`, uint8.

    Raises:
        DataError: as `Picture`.
    """
    return Picture(path).whole()


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
        DataError: as `Picture`.
    """
    if Path(path).suffix.lower() == ".png":
        with opened(path) as image:
            image.verify()
            return image.height, image.width
    picture = Picture(path)
    return picture.height, picture.width


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
    content = io.BytesIO()
    picture.save(content, format=kind)
    write_bytes(path, content.getvalue())


def to_unit(image: Tensor) -> Tensor:
    """8-bit levels as float32 in 0..1, in any shape."""
    return image.to(torch.float32) / 255.0


def to_uint8(image: Tensor) -> Tensor:
    """Values in 0..1 as 8-bit levels, rounded and clamped, in any shape."""
    return (image.to(torch.float32) * 255.0).round().clamp(0, 255).to(torch.uint8)


def _decode(path: Path | str) -> Image.Image | Tensor:
    scan = read_tiff(path)
    if scan is not None:
        return _to_tensor(_rgb(to_8bit(scan.levels)))
    with opened(path) as image:
        deep = read_deep(path, image)
        if deep is not None:
            return _to_tensor(_rgb(to_8bit(deep)))
        if image.mode == "F":
            raise DataError(f"{path}: floating-point images have no known white; save it as PNG")
        image.load()
        return image


def _to_tensor(levels: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(levels.transpose(2, 0, 1).copy())


@contextmanager
def opened(path: Path | str) -> Iterator[Image.Image]:
    """Open a file and turn what Pillow raises, then or while decoding, into a `DataError`."""
    try:
        with no_warnings(), open_image(path) as image:
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


def _rgb(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Grey as equal channels, and without alpha."""
    return levels[..., :3] if levels.shape[2] > 2 else np.repeat(levels[..., :1], 3, axis=2)


__all__ = [
    "SUFFIXES", "Picture", "image_size", "intact_size", "opened", "read_image", "to_uint8",
    "to_unit", "write_image",
]  # fmt: skip

"""What SR benchmarks take from MATLAB: `imresize(uint8_image, 1/scale)`, and the Y of YCbCr."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from drc.core.errors import DataError

REACH = 2
"""The cubic kernel reaches two LR pixels to each side."""

_VERTICAL, _HORIZONTAL = -2, -1

# MATLAB's rgb2ycbcr: full-range RGB to luma in 16..235.
_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_BLACK = 16 / 255


def downscale(hr: Tensor, scale: int, value_range: float = 255.0, rounded: bool = True) -> Tensor:
    """Shrink by a whole factor, equal in every pixel to the published LR images.

    An antialiased cubic (a = -0.5) runs down the columns, then along the rows; borders repeat the
    edge pixel, and each pass rounds to 8 bits, because MATLAB keeps the type of its input.

    Args:
        hr: `(N, C, H, W)`, floating point, 0..`value_range`; H and W multiples of `scale`.
        scale: at least 1.
        value_range: the value of white, 1.0 or 255.0.
        rounded: as MATLAB does for 8-bit images; False for what it makes of floating-point ones.

    Returns:
        `(N, C, H / scale, W / scale)`, on the 256 levels of an 8-bit image if rounded.

    Raises:
        DataError: a side is not a multiple of `scale`.
    """
    _check_multiple(hr, scale)
    if scale == 1:
        return hr
    levels = hr * (255.0 / value_range)
    for dim in (_VERTICAL, _HORIZONTAL):
        levels = _resize(levels, dim, levels.shape[dim] // scale, REACH * scale, REACH)
        levels = round8(levels) if rounded else levels
    return levels * (value_range / 255.0)


def downscale_window(hr: Tensor, scale: int, top: int, left: int, patch: int) -> Tensor:
    """A square window of `downscale(hr, scale)`, bit for bit, without the work outside it.

    Args:
        hr: `(N, C, H, W)`, floating point or uint8, 0..255; H and W multiples of `scale`.
        scale: at least 1.
        top, left: first row and column of the window, in LR pixels.
        patch: side of the window, in LR pixels.

    Returns:
        `(N, C, patch, patch)`, floating point, on 8-bit levels.
    """
    return shrink_window(lambda x: downscale(x.float(), scale), hr, scale, top, left, patch, REACH)


def window(image: Tensor, top: int, left: int, size: int) -> Tensor:
    """The square of `image`, `(..., H, W)`, whose first row and column are `top` and `left`."""
    return image[..., top : top + size, left : left + size]


def shrink_window(
    shrink: Callable[[Tensor], Tensor],
    hr: Tensor,
    scale: int,
    top: int,
    left: int,
    patch: int,
    margin: int,
) -> Tensor:
    """A square window of `shrink(hr)`, without the work outside it.

    What lies around the window is shrunk along, so its borders are those of the whole image
    shrunk: pixels are made up only where the image itself ends.

    Args:
        shrink: maps `(..., H, W)` to `(..., H / scale, W / scale)`.
        hr: `(..., H, W)`; rows and columns beyond a multiple of `scale` are not looked at.
        scale: HR side over LR side.
        top, left: first row and column of the window, in LR pixels.
        patch: side of the window, in LR pixels.
        margin: LR pixels around the window whose HR pixels reach into it.

    Returns:
        `(..., patch, patch)`.
    """
    for dim, start in ((-2, top), (-1, left)):
        first, last = max(start - margin, 0), min(start + patch + margin, hr.shape[dim] // scale)
        hr = hr.narrow(dim, first * scale, (last - first) * scale)
    return window(shrink(hr.contiguous()), min(top, margin), min(left, margin), patch)


def nearest(hr: Tensor, scale: int) -> Tensor:
    """Keep one pixel of each `scale` by `scale` block, as MATLAB's method "nearest" does.

    LR pixel i (from 0) lies over the HR position `scale * i + (scale - 1) / 2`. That is the middle
    pixel of its block where the scale is odd. Where it is even, that is the border between the two
    middle pixels, and MATLAB, whose box kernel holds its left end alone, takes the later one,
    `scale * i + scale / 2`: LR then shows what lies half an HR pixel further down and right than in
    bicubic images. Both are `scale * i + scale // 2`.

    Args:
        hr: `(..., H, W)`; H and W multiples of `scale`.
        scale: at least 1.

    Returns:
        `(..., H / scale, W / scale)`, a view.

    Raises:
        DataError: a side is not a multiple of `scale`.
    """
    _check_multiple(hr, scale)
    return hr[..., scale // 2 :: scale, scale // 2 :: scale]


def upscale(lr: Tensor, scale: int) -> Tensor:
    """Enlarge by a whole factor; the bicubic baseline that an SR network must beat.

    Args:
        lr: `(N, C, h, w)`, floating point, any value range.
        scale: at least 1.

    Returns:
        `(N, C, h * scale, w * scale)`, neither rounded nor clamped.
    """
    for dim in (_VERTICAL, _HORIZONTAL):
        lr = _resize(lr, dim, lr.shape[dim] * scale, REACH, REACH * scale)
    return lr


def luma(images: Tensor, white: float) -> Tensor:
    """The Y channel of MATLAB's YCbCr, not rounded.

    Args:
        images: `(..., 3, H, W)`, floating-point RGB in 0..`white`.
        white: the largest value.

    Returns:
        `(..., 1, H, W)`, of the same type, from 16/255 to 235/255 of `white`.
    """
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)
    return torch.einsum("...chw,c->...hw", images, weights).unsqueeze(-3) + _BLACK * white


def from_luma(y: Tensor) -> Tensor:
    """The grey whose luma in 16/255..235/255 `y` is: full range, 0..1 and not clamped."""
    return (y - _BLACK) / sum(_LUMA)


def _resize(x: Tensor, dim: int, size: int, pad: int, cut: int) -> Tensor:
    """Resize one dimension to `size`, with `pad` repeated pixels that become `cut` at each end."""
    amounts = (0, 0, pad, pad) if dim == _VERTICAL else (pad, pad, 0, 0)
    padded = F.pad(x, amounts, mode="replicate")
    shape = list(x.shape[-2:])
    shape[dim] = size + 2 * cut
    return F.interpolate(padded, size=shape, mode="bicubic", antialias=True).narrow(dim, cut, size)


def _check_multiple(hr: Tensor, scale: int) -> None:
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise DataError(f"a {height}x{width} image is not a multiple of x{scale}; crop it first")


def round8(x: Tensor) -> Tensor:
    """The nearest 8-bit levels to values in 0..255, halves up as MATLAB rounds."""
    return (x + 0.5).floor().clamp(0, 255)

"""`drc.upscale`: one image, or a batch, through a network."""

from __future__ import annotations

from pathlib import Path
from typing import overload

import torch
from PIL import Image
from torch import Tensor, nn

from drc.core.errors import DataError
from drc.data.images import to_uint8, to_unit
from drc.data.photo import photo_of
from drc.data.photo_files import read_photo
from drc.settings.report import TILE_OVERLAP
from drc.upscaling.enlarge import Enlarger
from drc.upscaling.network import torch_upscaler


@overload
def upscale(
    model: nn.Module,
    image: Tensor,
    tile: int = 0,
    self_ensemble: bool = False,
    *,
    overlap: int = TILE_OVERLAP,
    device: str | torch.device = "auto",
) -> Tensor: ...


@overload
def upscale(
    model: nn.Module,
    image: Image.Image | str | Path,
    tile: int = 0,
    self_ensemble: bool = False,
    *,
    overlap: int = TILE_OVERLAP,
    device: str | torch.device = "auto",
) -> Image.Image: ...


def upscale(
    model: nn.Module,
    image: Tensor | Image.Image | str | Path,
    tile: int = 0,
    self_ensemble: bool = False,
    *,
    overlap: int = TILE_OVERLAP,
    device: str | torch.device = "auto",
) -> Tensor | Image.Image:
    """Enlarge an image; rounded to 8 bits, the result is what `drc.evaluate` measures.

    Args:
        model: any SR network; it returns to its own device and mode.
        image: a tensor `(C, h, w)` or `(N, C, h, w)`, floating point in 0..1 or uint8, C being the
            channels of the network; an image of Pillow's; or the path of an image file.
        tile: largest LR side that goes through the network at once; 0 for whole images.
        self_ensemble: average the eight flips and turns of the image.
        overlap: LR pixels of a tile that are dropped at every cut edge.
        device: auto, cpu or cuda:N.

    Returns:
        For a tensor one of the same type, dimensions and device, clamped to 0..1; otherwise an
        upright 8-bit image of Pillow's, grey if it was grey, with alpha if it had some.

    Raises:
        DataError: an unreadable file, or a tensor that is no image for the network.
        UsageError: no such device, or a tile too small for the overlap.
        ModelError: the network fails.
    """
    with torch_upscaler(model, type(model).__name__, device) as upscaler:
        enlarger = Enlarger(upscaler, tile, overlap, self_ensemble)
        if isinstance(image, Tensor):
            return _tensor(enlarger, image)
        if isinstance(image, Image.Image):
            return enlarger(photo_of(image)).to_pil()
        if isinstance(image, (str, Path)):
            return enlarger(read_photo(image), str(image)).to_pil()
    raise DataError(
        f"cannot enlarge a {type(image).__name__}; pass a tensor, an image of Pillow's, or a path"
    )


def _tensor(enlarger: Enlarger, image: Tensor) -> Tensor:
    batch = image[None] if image.ndim == 3 else image
    channels = enlarger.upscaler.channels
    known = image.is_floating_point() or image.dtype == torch.uint8
    if batch.ndim != 4 or batch.shape[1] != channels or not known or not batch.numel():
        raise DataError(
            f"an image for this network is ({channels}, h, w) or (N, {channels}, h, w), floating "
            f"point in 0..1 or uint8, not {tuple(image.shape)} {image.dtype}"
        )
    whole = image.is_floating_point()
    enlarged = enlarger.tensor(batch.cpu().float() if whole else to_unit(batch.cpu()))
    enlarged = enlarged.to(image.dtype) if whole else to_uint8(enlarged)
    return (enlarged[0] if image.ndim == 3 else enlarged).to(image.device)

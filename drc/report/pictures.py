"""What is not a photo as a picture: maps of errors, and the blur kernels that networks estimate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from drc.data.images import to_uint8
from drc.evaluation.benchmark import Evaluation

GAIN = 5
"""Errors are drawn this many times as large as they are."""

_RAMP = ((0, 0, 0), (58, 15, 110), (175, 50, 100), (245, 140, 40), (255, 250, 200))
"""Black over purple and orange to near white: brighter is larger, in any kind of colour vision."""

LARGEST_GRID = 20
"""Images at most in a picture of kernels."""

_SIDE = 124  # pixels of a kernel in its picture, about
_GAP = 4


def error_map(error: Tensor) -> Tensor:
    """Draw errors, `(H, W)` in 0..1, as a picture `(3, H, W)` uint8; white from 1 / `GAIN` on."""
    ramp = torch.tensor(_RAMP, dtype=torch.float32)
    level = (error * GAIN).clamp(0, 1) * (len(_RAMP) - 1)
    low = level.long().clamp(max=len(_RAMP) - 2)
    colours = torch.lerp(ramp[low], ramp[low + 1], (level - low)[..., None])
    return colours.round().to(torch.uint8).permute(2, 0, 1).contiguous()


def ramp_css() -> str:
    """The colours of `error_map` as a CSS gradient."""
    return f"linear-gradient(to right,{','.join(f'rgb{colour}' for colour in _RAMP)})"


def kernel_grid(before: Evaluation, after: Evaluation) -> Tensor:
    """Kernels of the first 20 images as a picture, one image per row.

    The columns are the estimates before and after and the target, each from black for 0 to white
    for its largest value.

    Returns:
        `(3, H, W)`, uint8.

    Raises:
        ValueError: no kernels (a defect, not a user error).
    """
    rows = []
    for old, new in zip(before.images, after.images, strict=True):
        if old.kernel is not None and new.kernel is not None:
            kernels = old.kernel.estimate, new.kernel.estimate, new.kernel.target
            rows.append(torch.cat(list(map(_tile, kernels)), 1))
    if not rows:
        raise ValueError("there are no kernels to show")
    grid = torch.cat(rows[:LARGEST_GRID], 0)[:-_GAP, :-_GAP]
    return to_uint8(grid).expand(3, -1, -1)


def _tile(kernel: Tensor) -> Tensor:
    """A kernel in 0..1, enlarged without smoothing, with a grey gap to the right and below."""
    zoom = max(1, _SIDE // kernel.shape[-1])
    levels = kernel.clamp(min=0) / kernel.max().clamp(min=1e-12)
    pixels = levels.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    return pad(pixels, (0, _GAP, 0, _GAP), value=0.5)

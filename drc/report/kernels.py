"""The blur kernels that networks for blind SR estimate: their errors, and a picture of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from drc.data.images import to_uint8
from drc.evaluation.benchmark import Evaluation
from drc.report.schema import KernelErrors

LARGEST_GRID = 20
"""Images at most in a picture."""

_SIDE = 124  # pixels of a kernel in the picture, about
_GAP = 4


def kernel_errors(quality: Mapping[str, Evaluation]) -> KernelErrors | None:
    """The errors of the networks `before`, `pruned` and `after`; None where there are none."""
    found = {name: quality[name].kernel_error for name in KernelErrors.model_fields if quality}
    errors = {name: error for name, error in found.items() if error is not None}
    return KernelErrors(**errors) if len(errors) == len(KernelErrors.model_fields) else None


def kernel_grid(before: Evaluation, after: Evaluation) -> Tensor:
    """Kernels of the first 20 images as a picture, one image per row.

    The columns are the estimates before and after and the target, each from black for 0 to white
    for its largest value.

    Returns:
        `(3, H, W)`, uint8.

    Raises:
        ValueError: no kernels (a defect, not a user error).
    """
    rows = [
        torch.cat([_tile(kernel) for kernel in (old.estimate, new.estimate, new.target)], 1)
        for old, new in zip(
            (image.kernel for image in before.images),
            (image.kernel for image in after.images),
            strict=True,
        )
        if old is not None and new is not None
    ]
    if not rows:
        raise ValueError("there are no kernels to show")
    grid = torch.cat(rows[:LARGEST_GRID], 0)[:-_GAP, :-_GAP]
    return to_uint8(grid).expand(3, -1, -1)


def _tile(kernel: Tensor) -> Tensor:
    """A kernel in 0..1, enlarged without smoothing, with a grey gap to the right and below."""
    zoom = max(1, _SIDE // kernel.shape[-1])
    levels = kernel.clamp(min=0) / kernel.max().clamp(min=1e-12)
    pixels = levels.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    return torch.nn.functional.pad(pixels, (0, _GAP, 0, _GAP), value=0.5)


__all__ = ["LARGEST_GRID", "kernel_errors", "kernel_grid"]

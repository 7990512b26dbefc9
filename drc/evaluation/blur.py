"""How near an estimated blur kernel comes to the one that the image shows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from drc.data.images import to_unit
from drc.data.matlab import downscale
from drc.training.kernel_loss import kernel_target


@dataclass(frozen=True, eq=False)
class KernelScore:
    """The blur kernel of one image, `(k, k)` on the CPU, each of sum 1.

    Attributes:
        estimate: the network's.
        target: what `drc.training.kernel_loss.kernel_target` finds by comparing the LR image with
            a bicubic one.
    """

    estimate: Tensor
    target: Tensor

    @property
    def error(self) -> float:
        """Sum of the absolute differences: 0 where they are equal, 2 where they do not overlap."""
        return (self.estimate - self.target).abs().sum().item()


def score_kernel(kernel: Tensor, lr: Tensor, hr: Tensor, scale: int) -> KernelScore | None:
    """Compare a kernel with its target; None where the LR image is smaller than the kernel.

    Args:
        kernel: `(1, 1, k, k)`.
        lr: `(C, h, w)`, 0..1.
        hr: `(C, h * scale, w * scale)`, uint8.
        scale: HR side over LR side.
    """
    size = kernel.shape[-1]
    if min(lr.shape[-2:]) < size:
        return None
    clean = downscale(to_unit(hr)[None], scale, 1.0, rounded=False)
    target = kernel_target(clean, lr[None].cpu(), size)
    return KernelScore(kernel[0, 0].float().cpu(), target[0, 0])


__all__ = ["KernelScore", "score_kernel"]

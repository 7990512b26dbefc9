"""Networks for blind SR, which estimate the blur of an LR image along with its SR image."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class KernelEstimator(Protocol):
    """What a network offers whose blur kernels can be trained and measured.

    Its `forward` gives the first part of what `restore` gives. After a cut drc rewrites the sizes
    that modules of the network use in their `forward`, not those in `restore` itself.

    Attributes:
        kernel_size: k, side of the kernels in LR pixels, odd and at least 7.
    """

    kernel_size: int

    def restore(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """SR images, and the blur kernels of the LR images, `(N, 1, k, k)`, of sum 1."""
        ...


class WithKernel(nn.Module):
    """Gives SR images and kernels in `forward`, which is what DistributedDataParallel watches.

    Args:
        network: a `KernelEstimator`; its parameters are shared, not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        return cast(KernelEstimator, self.network).restore(lr)

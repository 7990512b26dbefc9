"""Distillation from the dense network: the compressed one learns to repeat its images."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.errors import ModelError
from drc.models.traits import final_output
from drc.training.losses import Outputs, full_precision

Network = TypeVar("Network", bound=nn.Module)


def private_copy(
    module: Network,
    device: torch.device | None = None,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Network:
    """A float32 copy of a network that can be trained without touching the original."""
    copy = deepcopy(module).float().to(device)
    return copy.to(memory_format=memory_format)  # type: ignore[call-overload]


class OutputDistillation:
    """L1 between a network's images and its teacher's, on every level both of them have.

    Two pyramids of equal sizes are compared level by level and the levels added; otherwise the
    SR images alone are compared.

    Args:
        teacher: usually the network before pruning; it is copied and never trained.
        device: where the copy goes; None for the teacher's own.
        memory_format: of the copy.
    """

    def __init__(
        self,
        teacher: nn.Module,
        device: torch.device | None = None,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> None:
        self.teacher = private_copy(teacher, device, memory_format).eval().requires_grad_(False)

    def __call__(self, outputs: Outputs, lr: Tensor) -> Tensor:
        """The loss, a scalar in units of the pixel range.

        Args:
            outputs: the network's images, float32.
            lr: the batch they were made from, `(N, 3, h, w)` in the range of both networks.

        Raises:
            ModelError: the teacher's SR image has another size.
        """
        with torch.no_grad():
            wanted = full_precision(self.teacher(lr))
        if not _same_levels(outputs, wanted):
            outputs, wanted = [final_output(outputs)], [final_output(wanted)]
            if outputs[0].shape != wanted[0].shape:
                raise ModelError(
                    f"the teacher's image is {tuple(wanted[0].shape)}, the network's "
                    f"{tuple(outputs[0].shape)}; use a teacher of the same scale"
                )
        pairs = zip(outputs, wanted, strict=True)
        return sum((F.l1_loss(x, y) for x, y in pairs), start=lr.new_zeros(()))


def _same_levels(ours: Outputs, wanted: Outputs) -> bool:
    if isinstance(ours, Tensor) or isinstance(wanted, Tensor):
        return False
    return [x.shape for x in ours] == [y.shape for y in wanted]


__all__ = ["OutputDistillation", "private_copy"]

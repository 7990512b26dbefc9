"""What recovery minimises: primal, distillation and dual terms, each with its weight."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drc.config import FinetuneSettings
from drc.errors import UsageError
from drc.training.distill import OutputDistillation
from drc.training.losses import Dual, dual_loss, full_precision, primal_loss, pyramid_targets

TERMS = ("loss", "primal", "distill", "dual")

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Objective:
    """The weighted sum of the losses that a run uses.

    Attributes:
        settings: gives the weights and the autocast type of the two networks.
        value_range: of the network.
        distillation: from the teacher; None without one.
        dual: the dual model, or its wrapper; None without one.
    """

    settings: FinetuneSettings
    value_range: float
    distillation: OutputDistillation | None
    dual: Dual | None

    def __post_init__(self) -> None:
        if not self.settings.distill:
            self.distillation = None
        if not self.settings.dual_weight:
            self.dual = None
        if not (self.settings.primal or self.distillation or self.dual):
            raise UsageError(
                "every loss is off; set a weight above 0 for primal, distill (with a teacher) "
                "or dual_weight (with a dual model)"
            )

    def __call__(self, model: nn.Module, lr: Tensor, hr: Tensor) -> Tensor:
        """The terms in the order of `TERMS`, a vector; those switched off are 0.

        The first is the weighted sum to minimise, the others are without their weights. Images
        are float32, `(N, 3, h, w)` and `(N, 3, h * scale, w * scale)`, in 0..`value_range`.

        Raises:
            ModelError: the network's or the teacher's image has a wrong size.
        """
        settings = self.settings
        with self._autocast(lr.device):
            outputs = full_precision(model(lr))
            distill = self.distillation(outputs, lr) if self.distillation else lr.new_zeros(())
        targets = pyramid_targets(outputs, lr, hr, self.value_range)
        primal = primal_loss(outputs, targets)
        dual = dual_loss(self.dual, outputs, lr, targets) if self.dual else lr.new_zeros(())
        terms = torch.stack((primal, distill, dual))
        weights = (settings.primal, settings.distill, settings.dual_weight)
        total = torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum()
        return torch.cat((total[None], terms.detach()))

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        dtype = _AUTOCAST.get(self.settings.amp)
        return torch.autocast(device.type, dtype, enabled=dtype is not None)


__all__ = ["TERMS", "Objective"]

"""What recovery minimises: primal, distillation, dual and kernel terms, each with its weight."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drc.core.errors import UsageError
from drc.data.matlab import downscale
from drc.settings import RecoverySettings
from drc.training.distill import Teacher, output_loss
from drc.training.feature_distill import FeatureDistillation
from drc.training.kernel_loss import kernel_loss, kernel_target
from drc.training.losses import (
    Dual,
    Outputs,
    chain_loss,
    dual_loss,
    first_of,
    full_precision,
    level_loss,
    pyramid_targets,
)

TERMS = ("loss", "primal", "distill", "features", "dual", "kernel")

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Objective:
    """The weighted sum of the losses that a run uses.

    Attributes:
        settings: gives the weights and the autocast type of the two networks.
        value_range: of the network.
        teacher: whose images, and features, the network learns to repeat; None without one.
        dual: the dual model, or its wrapper; None without one.
        kernel: the network gives a blur kernel beside its images, as `WithKernel` does, and the
            kernel has a weight. The caller says whether the network estimates one.
        features: compares the layers of the network and the teacher; None without a weight.
    """

    settings: RecoverySettings
    value_range: float
    teacher: Teacher | None
    dual: Dual | None
    kernel: bool = False
    features: FeatureDistillation | None = None

    def __post_init__(self) -> None:
        if not (self.settings.distill or self.features):
            self.teacher = None
        if not self.settings.dual_weight:
            self.dual = None
        if not self.settings.kernel_weight:
            self.kernel = False
        if not (self.settings.primal or self.teacher or self.dual or self.kernel):
            raise UsageError(
                "every loss is off; set a weight above 0 for primal, distill or features (with a "
                "teacher), dual_weight (with a dual model) or kernel_weight (with a network for "
                "blind SR)"
            )

    def __call__(
        self, model: nn.Module, lr: Tensor, hr: Tensor, unpaired: Tensor | None = None
    ) -> Tensor:
        """The terms in the order of `TERMS`, a vector; those switched off are 0.

        The first is the weighted sum to minimise, the others are without their weights. Images
        are float32, `(N, 3, h, w)` and `(N, 3, h * scale, w * scale)`, in 0..`value_range`.
        LR images without HR, `(M, 3, h, w)`, take part in the dual loss alone, in which then all
        images weigh alike and go back from SR to LR: Guo et al., CVPR 2020, algorithm 1.

        Raises:
            ModelError: the network's or the teacher's image has a wrong size.
            DataError: the LR images are smaller than the blur kernel.
        """
        settings, none = self.settings, lr.new_zeros(())
        wanted: Outputs | None = None
        with self._autocast(lr.device), self.features.watched() if self.features else nullcontext():
            whole = lr if unpaired is None else torch.cat((lr, unpaired))
            outputs, estimate = model(whole) if self.kernel else (model(whole), None)
            outputs = full_precision(outputs)
            if self.teacher is not None:
                wanted = self.teacher(lr)
        every, count = outputs, len(lr)
        if unpaired is not None:
            outputs = first_of(outputs, count)
            estimate = None if estimate is None else estimate[:count]
        targets = pyramid_targets(outputs, lr, hr, self.value_range)
        primal = level_loss(outputs, targets)
        distill = none if wanted is None else output_loss(outputs, wanted)
        dual = none
        if self.dual and unpaired is None:
            dual = dual_loss(self.dual, outputs, lr, targets)
        elif self.dual:
            dual = chain_loss(self.dual, every, whole)
        weighted = [
            (settings.primal, primal),
            (settings.distill, distill),
            (settings.dual_weight, dual),
        ]
        # What few runs use is added where they do: a sum of one more zero may round otherwise.
        features = self.value_range * self.features() if self.features else none
        if self.features:
            weighted.append((settings.features, features))
        kernel = none if estimate is None else _kernel_term(estimate, lr, hr)
        if self.kernel:
            weighted.append((settings.kernel_weight, kernel))
        total = torch.stack([weight * term for weight, term in weighted]).sum()
        terms = torch.stack((primal, distill, features, dual, kernel))
        return torch.cat((total[None], terms.detach()))

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        dtype = _AUTOCAST.get(self.settings.amp)
        return torch.autocast(device.type, dtype, enabled=dtype is not None)


def _kernel_term(estimate: Tensor, lr: Tensor, hr: Tensor) -> Tensor:
    """The loss of a kernel `(N, 1, k, k)`: that which makes `lr` of plain bicubic images."""
    clean = downscale(hr, hr.shape[-1] // lr.shape[-1], rounded=False)
    return kernel_loss(estimate, kernel_target(clean, lr, estimate.shape[-1]))

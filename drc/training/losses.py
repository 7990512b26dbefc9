"""The dual regression loss (Guo et al., CVPR 2020): L_P(P(x), y) + lambda * L_D(D(P(x)), x)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from drc.data.matlab import downscale
from drc.models.dual import DualModel
from drc.models.traits import final_output

DUAL_WEIGHT = 0.1

Outputs = Tensor | Sequence[Tensor]


def pyramid_targets(outputs: Outputs, lr: Tensor, hr: Tensor, value_range: float) -> list[Tensor]:
    """The ground truth of every level of `outputs`, coarse to fine.

    The coarsest level of an LR-sized output is `lr` itself; levels between are `hr` shrunk as
    the LR images were. Images are `(N, 3, h, w)` in 0..`value_range`.
    """
    if isinstance(outputs, Tensor):
        return [hr]
    targets = []
    for output in outputs:
        scale = hr.shape[-1] // output.shape[-1]
        same_as_lr = output.shape[-2:] == lr.shape[-2:]
        targets.append(lr if same_as_lr else downscale(hr, scale, value_range))
    return targets


def primal_loss(outputs: Outputs, targets: Sequence[Tensor]) -> Tensor:
    """Sum over the levels of the mean absolute error, in units of the pixel range."""
    images = [outputs] if isinstance(outputs, Tensor) else outputs
    pairs = zip(images, targets, strict=True)
    return sum((F.l1_loss(x, y) for x, y in pairs), start=targets[0].new_zeros(()))


def dual_loss(dual: DualModel, outputs: Outputs, lr: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Sum over the dual model's images of the mean absolute error to the coarser truth.

    `targets` are those of `pyramid_targets`; the coarsest image is compared with `lr`.
    """
    images = dual(outputs)
    truths = [lr, *targets[1:-1]] if len(images) > 1 else [lr]
    pairs = zip(images, truths, strict=True)
    return sum((F.l1_loss(x, y) for x, y in pairs), start=lr.new_zeros(()))


def dual_regression_loss(
    outputs: Outputs,
    lr: Tensor,
    hr: Tensor,
    dual: DualModel | None,
    value_range: float,
    weight: float = DUAL_WEIGHT,
) -> Tensor:
    """The whole loss, a scalar; without a dual model, or at weight 0, the primal part alone."""
    targets = pyramid_targets(outputs, lr, hr, value_range)
    loss = primal_loss(outputs, targets)
    if dual is not None and weight:
        loss = loss + weight * dual_loss(dual, outputs, lr, targets)
    return loss


__all__ = [
    "DUAL_WEIGHT",
    "dual_loss",
    "dual_regression_loss",
    "final_output",
    "primal_loss",
    "pyramid_targets",
]

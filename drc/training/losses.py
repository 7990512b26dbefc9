"""The dual regression loss (Guo et al., CVPR 2020): L_P(P(x), y) + lambda * L_D(D(P(x)), x)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from drc.core.errors import ModelError
from drc.data.matlab import downscale
from drc.networks.traits import sr_images

DUAL_WEIGHT = 0.1

Outputs = Tensor | list[Tensor] | tuple[Tensor, ...]

Dual = Callable[[Outputs], list[Tensor]]
"""A `DualModel`, or its wrapper in one of several processes."""


def pyramid_targets(outputs: Outputs, lr: Tensor, hr: Tensor, value_range: float) -> list[Tensor]:
    """The ground truth of every level of `outputs`, coarse to fine.

    The coarsest level of an LR-sized output is `lr` itself; levels between are `hr` shrunk as
    the LR images were. Images are `(N, 3, h, w)` in 0..`value_range`.

    Raises:
        ModelError: an output is no image, or its size is no whole fraction of the HR image's.
    """
    targets = []
    for output in sr_images(outputs, hr.shape[1]):
        size, full = tuple(output.shape[-2:]), tuple(hr.shape[-2:])
        scale = full[-1] // max(1, size[-1])
        if (size[0] * scale, size[1] * scale) != full:
            raise ModelError(
                f"the network made a {size[0]}x{size[1]} image for a {full[0]}x{full[1]} target; "
                "check its scale"
            )
        is_lr = scale > 1 and size == tuple(lr.shape[-2:])
        targets.append(lr if is_lr else downscale(hr, scale, value_range))
    return targets


def full_precision(outputs: Outputs) -> Outputs:
    """A network's images as float32, in which every loss is computed."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return [output.float() for output in outputs]


def level_loss(outputs: Outputs, truths: Outputs) -> Tensor:
    """Sum over the levels of the mean absolute error, in units of the pixel range."""
    images, wanted = ([x] if isinstance(x, Tensor) else x for x in (outputs, truths))
    pairs = zip(images, wanted, strict=True)
    return sum((F.l1_loss(x, y) for x, y in pairs), start=wanted[0].new_zeros(()))


def dual_loss(dual: Dual, outputs: Outputs, lr: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Sum over the dual model's images of the mean absolute error to the coarser truth.

    `targets` are those of `pyramid_targets`; the coarsest image is compared with `lr`.
    """
    images = dual(outputs)
    return level_loss(images, [lr, *targets[1:-1]] if len(images) > 1 else [lr])


def chain_loss(dual: Dual, outputs: Outputs, lr: Tensor) -> Tensor:
    """Mean absolute error of the LR images that the SR images alone give back.

    It needs no image between LR and SR, so it can be had of LR images that have no HR.
    """
    final = outputs if isinstance(outputs, Tensor) else outputs[-1]
    return F.l1_loss(dual(final)[0], lr)


def first_of(outputs: Outputs, count: int) -> Outputs:
    """The outputs of the first `count` images of a batch."""
    if isinstance(outputs, Tensor):
        return outputs[:count]
    return [image[:count] for image in outputs]


def dual_regression_loss(
    outputs: Outputs,
    lr: Tensor,
    hr: Tensor,
    dual: Dual | None,
    value_range: float,
    weight: float = DUAL_WEIGHT,
) -> Tensor:
    """The whole loss, a scalar; without a dual model, or at weight 0, the primal part alone."""
    targets = pyramid_targets(outputs, lr, hr, value_range)
    loss = level_loss(outputs, targets)
    if dual is not None and weight:
        loss = loss + weight * dual_loss(dual, outputs, lr, targets)
    return loss

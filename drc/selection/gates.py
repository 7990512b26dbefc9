"""Gates: a factor of 1 on every channel, and the gradient of a loss by it.

The gradient is read off the weights: scaling a channel scales the input slices of all layers that
read it, so dL/dgate = sum of w * dL/dw there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from drc.core.distributed import shard, size
from drc.core.errors import TrainingError
from drc.core.runtime import eval_mode
from drc.graph.groups import Group, Slice
from drc.selection.calibration import Calibration
from drc.training.losses import Outputs, dual_regression_loss

Objective = Callable[[Calibration, Outputs, Tensor, Tensor], Tensor]


def regression_loss(calibration: Calibration, outputs: Outputs, lr: Tensor, hr: Tensor) -> Tensor:
    """The dual regression loss of a network's images, as the calibration weighs it.

    Raises:
        TrainingError: it is not finite.
    """
    value_range, weight = calibration.value_range, calibration.dual_weight
    loss = dual_regression_loss(outputs, lr, hr, calibration.dual, value_range, weight)
    if not torch.isfinite(loss):
        raise TrainingError("the dual regression loss is not finite on the calibration data")
    return loss


def gate_gradients(
    calibration: Calibration,
    gates: list[list[Slice]] | None = None,
    objective: Objective = regression_loss,
    before: Callable[[int], None] | None = None,
) -> Iterator[list[np.ndarray]]:
    """dL/dgate of every channel, crop by crop: `(blocks, atoms)` per group.

    One process goes through all calibration crops; each of several through its shard of them, so
    that what is made of the gradients is to be added up over all.

    Args:
        calibration: network, groups and data.
        gates: per group, the slices that carry its gates; None for those of `gate_slices`.
        objective: what to derive, as `objective(calibration, outputs, lr, hr)`.
        before: called with the number of each crop before it goes through the network.

    Raises:
        TrainingError: the loss is not finite.
        DataError: there are no crops.
    """
    model, groups = calibration.model, calibration.graph.groups
    required = {name: p.requires_grad for name, p in model.named_parameters()}
    parameters = dict(model.named_parameters())
    readers = gates or [gate_slices(group) for group in groups]
    needed = sorted({part.tensor for slices in readers for part in slices} & parameters.keys())
    tensors = [parameters[name] for name in needed]
    try:
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in needed)
        for number, (lr, hr) in shard(calibration.crops()):
            if before is not None:
                before(number)
            # Through the image everything is reached, also what only hooks ask for.
            image = lr.clone().requires_grad_()
            with eval_mode(model):
                outputs = model(image.clone())
                loss = objective(calibration, outputs, lr, hr)
                *found, _ = torch.autograd.grad(loss, [*tensors, image], allow_unused=True)
            pulls = _pulls(needed, tensors, found, readers)
            yield [_per_atom(g, s, pulls) for g, s in zip(groups, readers, strict=True)]
            if calibration.progress:
                done = min(number + size(), calibration.patches)
                calibration.progress("sensitivity", done, calibration.patches, {})
        calibration.passes.add(calibration.patches)
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(required[name])


def gate_slices(group: Group) -> list[Slice]:
    """The slices that carry a gate: the readers, or the first writer where no weight reads.

    Channels that only meet each other (queries and keys) have no reading weight; there the gate
    sits on the module that writes the first of them. Every block has slices of its own.
    """
    gates = []
    for block in range(group.blocks):
        parts = [_in_block(part, block) for part in group.slices if block in part.block]
        readers = [part for part in parts if part.read]
        first = parts[0].tensor.rpartition(".")[0]
        gates += readers or [p for p in parts if p.tensor.rpartition(".")[0] == first]
    return gates


def _in_block(part: Slice, block: int) -> Slice:
    columns = part.block == block
    return replace(part, indices=part.indices[:, columns], block=part.block[columns])


def _pulls(
    names: list[str], tensors: list[nn.Parameter], gradients: list, readers: list[list[Slice]]
) -> dict[tuple[str, int], np.ndarray]:
    """sum of w * dL/dw for every index of every dimension that some gate uses."""
    products = {
        name: tensor.detach() * gradient
        for name, tensor, gradient in zip(names, tensors, gradients, strict=True)
        if gradient is not None
    }
    pulls = {}
    for part in itertools.chain.from_iterable(readers):
        key = (part.tensor, part.dim)
        if part.tensor in products and key not in pulls:
            product = products[part.tensor]
            rest = [d for d in range(product.ndim) if d != part.dim]
            pulls[key] = (product.sum(rest) if rest else product).double().cpu().numpy()
    return pulls


def _per_atom(group: Group, slices: list[Slice], pulls: dict) -> np.ndarray:
    total = np.zeros((group.blocks, group.size))
    for part in slices:
        pull = pulls.get((part.tensor, part.dim))
        if pull is not None:
            total[part.block[0]] += pull[part.indices].sum(1)
    return total

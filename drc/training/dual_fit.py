"""Fits a dual model to LR/HR pairs when no trained one is at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.randomness import isolated
from drc.core.runtime import Progress, resolve_device
from drc.data.batches import BatchReader
from drc.data.matlab import downscale
from drc.networks.dual import DualModel
from drc.networks.traits import Traits
from drc.settings import RecoverySettings
from drc.training.losses import level_loss
from drc.training.schedule import learning_rate

FIT_STEPS = 200
"""Steps of a fit where nobody asks for another number."""

_WARMUP = 10
_SOLVED_BATCHES = 4
_RIDGE = 1e-6  # of the mean feature energy; keeps the closed form solvable on flat images


def fit_to_crops(
    crops: Iterable[Any],
    traits: Traits,
    steps: int,
    seed: int,
    device: str | torch.device,
    progress: Progress | None,
) -> DualModel:
    """A dual model for a network of these traits, fitted to `(lr, hr)` crops; on the CPU.

    Raises:
        DataError: as `fit_dual`.
    """
    reader = BatchReader(crops, traits.scale, traits.value_range, "cpu", channels=traits.channels)
    return fit_dual(
        reader, traits.scale, traits.value_range, steps=steps, seed=seed, device=device,
        progress=progress,
    ).cpu()  # fmt: skip


def fit_dual(
    reader: BatchReader,
    scale: int,
    value_range: float,
    *,
    steps: int = FIT_STEPS,
    lr: float = 3e-4,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> DualModel:
    """Train a dual model to make LR images of HR images.

    It starts from a least-squares solution on the first four batches, about ten times closer
    than 200 steps from random weights, and is then trained with L1. Each of its steps learns from
    the true images of its two levels, as a pyramid's loss uses them, and the whole chain learns
    HR -> LR, as that of a single SR image does; so the result serves both kinds of network. One
    seed gives one result, bit for bit on a CPU.

    Args:
        reader: calibration batches; read again whenever they end.
        scale: HR side over LR side, made of twos and threes.
        value_range: the range of the batches.
        steps: optimizer steps; at 0 the closed form is returned.
        lr: peak learning rate of Adam.
        seed: of the random numbers that are drawn here.
        device: auto, cpu or cuda:N.
        progress: called after each step with the loss, in units of the range.

    Returns:
        The dual model in eval mode, frozen, on `device`.

    Raises:
        UsageError: a scale that no dual model has.
        DataError: unusable batches.
    """
    where = resolve_device(device)
    with isolated(seed, where):
        dual = DualModel(scale, channels=reader.channels).to(where)
        optimizer = torch.optim.Adam(dual.parameters(), lr)
        rates = RecoverySettings(steps=max(1, steps), lr=lr, warmup=_WARMUP)
        batches = _levels_of(dual, reader, value_range)
        _solve(dual, [next(batches) for _ in range(_SOLVED_BATCHES)])
        for step in range(steps):
            levels = next(batches)
            optimizer.param_groups[0]["lr"] = learning_rate(step, rates)
            loss = _loss(dual, levels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress("dual model", step + 1, steps, {"loss": loss.item()})
    return dual.eval().requires_grad_(False)


def _levels_of(dual: DualModel, reader: BatchReader, value_range: float) -> Iterator[list[Tensor]]:
    """Endlessly, the true images of all levels of a batch, from LR to HR."""
    device = next(dual.parameters()).device
    strides = [first.stride[0] for first, _ in _convolutions(dual)]
    while True:
        for lr, hr in reader:
            levels, size = [lr.to(device)], lr.shape[-1]
            for stride in strides[:-1]:
                size *= stride
                levels.append(downscale(hr.to(device), hr.shape[-1] // size, value_range))
            yield [*levels, hr.to(device)]


def _loss(dual: DualModel, levels: list[Tensor]) -> Tensor:
    loss = level_loss(dual(levels), levels[:-1])
    if len(levels) > 2:
        (image,) = dual(levels[-1])
        loss = loss + F.l1_loss(image, levels[0])
    return loss


@torch.no_grad()
def _solve(dual: DualModel, batches: list[list[Tensor]]) -> None:
    """Set the first conv of each step to sample its input, the second by least squares."""
    steps = zip(_convolutions(dual), dual.steps, strict=True)
    for level, ((first, second), step) in enumerate(steps):
        _set_sampling(first)
        gram = wanted = torch.zeros((), dtype=torch.float64)
        for levels in batches:
            features = step.get_submodule("dual_module.0")(levels[level + 1])
            patches = F.unfold(features, second.kernel_size, padding=second.kernel_size[0] // 2)
            rows = patches.transpose(1, 2).flatten(0, 1).double()
            truth = levels[level].permute(0, 2, 3, 1).flatten(0, 2).double()
            gram, wanted = gram + rows.T @ rows, wanted + rows.T @ truth
        gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
        solution = torch.linalg.solve(gram, wanted)
        second.weight.copy_(solution.T.reshape(second.weight.shape))


def _set_sampling(conv: nn.Conv2d) -> None:
    """Kernels that pick every pixel of a stride once: from each colour, or from their mean.

    All are positive, so the activation passes images on unchanged and a step can be an exact
    linear filter. Channels to spare keep their random weights.
    """
    stride, size, width = conv.stride[0], conv.kernel_size[0], conv.out_channels
    picks = torch.zeros(stride * stride, size, size)
    for index in range(stride * stride):
        row, column = divmod(index, stride)
        picks[index, size - stride + row, size - stride + column] = 1
    colours = conv.in_channels
    if len(picks) * colours <= width:
        kernels = torch.einsum("kij,cd->ckdij", picks, torch.eye(colours)).flatten(0, 1)
    else:
        grey = picks[:, None].expand(-1, colours, -1, -1) / colours
        means = torch.eye(colours)[:, :, None, None].expand(-1, -1, size, size) / size**2
        kernels = torch.cat((grey, means))
    conv.weight[: len(kernels)] = kernels[:width].to(conv.weight)


def _convolutions(dual: DualModel) -> list[tuple[nn.Conv2d, nn.Conv2d]]:
    """The strided and the plain conv of each step."""
    found = [module for module in dual.modules() if isinstance(module, nn.Conv2d)]
    return list(zip(found[::2], found[1::2], strict=True))

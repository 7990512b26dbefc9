"""Criteria that look at weights alone, and the baseline that looks at nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from drc.graph.groups import Group, Slice
from drc.selection.calibration import Calibration, Scores
from drc.selection.criteria.base import Ranking, register

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


@register("random", data_free=True)
def random(calibration: Calibration, ranking: Ranking) -> Scores:
    """Uniform numbers from the calibration seed: the baseline that every criterion must beat."""
    generator = np.random.default_rng(calibration.seed)
    groups = calibration.graph.groups
    return {group.name: generator.random((group.blocks, group.size)) for group in groups}


@register("l1", data_free=True)
def l1(calibration: Calibration, ranking: Ranking) -> Scores:
    """Mean absolute weight over the slices that write each atom, biases left out.

    Channels with small weights go first (Li et al., ICLR 2017).
    """
    return _mean_written_power(calibration, 1)


@register("l2", data_free=True)
def l2(calibration: Calibration, ranking: Ranking) -> Scores:
    """Root mean square weight over the slices that write each atom, biases left out.

    Within a group this ranks as the Euclidean norm does (He et al., IJCAI 2018): all its atoms have
    equally many weights.
    """
    scores = _mean_written_power(calibration, 2)
    return {name: np.sqrt(values) for name, values in scores.items()}


@register("fpgm", data_free=True)
def fpgm(calibration: Calibration, ranking: Ranking) -> Scores:
    """Sum of the Euclidean distances of each atom's filter to those of the others in its block.

    What others can replace goes first (geometric median; He et al., CVPR 2019). The filter of an
    atom is all the weights that write it, end to end, biases left out.
    """
    parameters = dict(calibration.model.named_parameters())
    scores = {}
    for group in calibration.graph.groups:
        blocks = [_filters(group, block, parameters) for block in range(group.blocks)]
        distances = [torch.cdist(filters, filters).sum(1) for filters in blocks]
        scores[group.name] = np.stack([total.cpu().numpy() for total in distances])
    return scores


@register("group_norm", data_free=True)
def group_norm(calibration: Calibration, ranking: Ranking) -> Scores:
    """Summed squares of the weights that write or read each atom, over the mean of its group.

    The weights of all coupled layers count (DepGraph, Fang et al., CVPR 2023), as in
    Torch-Pruning's GroupMagnitudeImportance: convolutions, linear layers and the scales of norms,
    not biases. Depthwise filters count here too, as the paper's formula says.
    """
    model = calibration.model
    parameters = dict(model.named_parameters())
    scores = {}
    for group in calibration.graph.groups:
        total = np.zeros((group.blocks, group.size))
        for part in group.slices:
            if part.tensor in parameters and _counts(model, part, parameters[part.tensor]):
                add_powers(total, part, parameters[part.tensor], 2)
        scores[group.name] = total / (total.mean() or 1.0)
    return scores


def add_powers(total: np.ndarray, part: Slice, weight: Tensor, power: int) -> None:
    """Add to `total`, `(blocks, atoms)`, the sums of |w| to a power over the part's indices."""
    rest = [d for d in range(weight.ndim) if d != part.dim]
    powers = weight.detach().abs() ** power
    sums = (powers.sum(rest) if rest else powers).double().cpu().numpy()
    np.add.at(total, part.block, sums[part.indices].T)


def _mean_written_power(calibration: Calibration, power: int) -> Scores:
    """Mean of |w| to a power over the weights that write each atom, biases left out."""
    parameters = dict(calibration.model.named_parameters())
    scores = {}
    for group in calibration.graph.groups:
        total = np.zeros((group.blocks, group.size))
        count = np.zeros((group.blocks, 1))
        for part in _written(group):
            weight = parameters.get(part.tensor)
            if weight is None or weight.ndim < 2:
                continue
            add_powers(total, part, weight, power)
            np.add.at(count, part.block, weight.numel() // weight.shape[part.dim])
        scores[group.name] = total / np.maximum(1, count)
    return scores


def _filters(group: Group, block: int, parameters: dict[str, nn.Parameter]) -> Tensor:
    """The filters of one block, `(atoms, weights)`, float64."""
    rows = [torch.zeros(group.size, 1, dtype=torch.float64)]
    for part in _written(group):
        weight = parameters.get(part.tensor)
        indices = part.indices[:, part.block == block]
        if weight is not None and weight.ndim >= 2 and indices.size:
            found = weight.detach().movedim(part.dim, 0).flatten(1).double().cpu()
            rows.append(found[torch.from_numpy(indices)].flatten(1))
    return torch.cat(rows, 1)


def _written(group: Group) -> list[Slice]:
    """The slices that write the channels."""
    return [part for part in group.slices if not part.read]


def _counts(model: nn.Module, part: Slice, parameter: nn.Parameter) -> bool:
    owner, _, name = part.tensor.rpartition(".")
    scale = name == "weight" and isinstance(model.get_submodule(owner), _NORMS)
    return parameter.ndim >= 2 or scale

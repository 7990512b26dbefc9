"""Masks that mix several widths of every group, differentiable in the weight of each width.

A mask needs no change of the network: masking a channel is multiplying the weight slices that read
it (see `gate_slices`), so a network is run with multiplied weights in place of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from drc.graph.groups import Group
from drc.selection.calibration import Calibration
from drc.selection.criteria.base import score
from drc.selection.gates import gate_slices

_START = 1e-3
"""Standard deviation of the first logits."""


class WidthMasks:
    """One softmax over candidate widths per group.

    The mask of a width is 1 on that many channels, those of the largest L1 norm, each block of a
    group by its own order; the mask of the group is the mean of them by softmax of its logits.

    Args:
        calibration: gives the network, its groups, the L1 norms and the seed.
        candidates: per group, in graph order, the widths.

    Attributes:
        logits: per group, one number for each of its widths, `(widths,)`; leaves.
    """

    def __init__(self, calibration: Calibration, candidates: Sequence[np.ndarray]) -> None:
        groups, norms = calibration.graph.groups, score("l1", calibration)
        like = next(calibration.model.parameters())
        generator = torch.Generator().manual_seed(calibration.seed)
        self.logits = [
            (_START * torch.randn(len(widths), generator=generator)).to(like).requires_grad_()
            for widths in candidates
        ]
        self._masks = [
            torch.from_numpy(_masks(norms[group.name], widths)).to(like)
            for group, widths in zip(groups, candidates, strict=True)
        ]
        self._gate_of = _gate_of(calibration.model, groups)

    def gates(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """Per group, the gate of every channel, 0 to 1, `(blocks * atoms,)`."""
        pairs = zip(logits, self._masks, strict=True)
        return [torch.softmax(logit, 0) @ masks for logit, masks in pairs]

    def masked(self, tensors: Mapping[str, Tensor], logits: Sequence[Tensor]) -> dict[str, Tensor]:
        """Those of a network's tensors that read channels, multiplied by the channels' gates."""
        gates = self.gates(logits)
        flat = torch.cat([*gates, gates[0].new_ones(1)])
        found = {}
        for name, dims in self._gate_of.items():
            tensor = tensors[name]
            for dim, gate in dims.items():
                tensor = tensor * flat[gate].view(-1, *[1] * (tensor.ndim - dim - 1))
            found[name] = tensor
        return found


def _masks(norms: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The mask of every width, `(widths, blocks * atoms)`, from L1 norms `(blocks, atoms)`."""
    order = np.argsort(-norms, axis=1, kind="stable")
    rank = np.argsort(order, axis=1)
    return (rank.reshape(1, -1) < widths[:, None]).astype(np.float64)


def _gate_of(model: nn.Module, groups: Sequence[Group]) -> dict[str, dict[int, Tensor]]:
    """For every index of every dimension that carries gates, which one it has.

    Gates are numbered through all groups, blocks and atoms; the number after the last stands for
    no gate.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    none = sum(group.blocks * group.size for group in groups)
    found: dict[str, dict[int, Tensor]] = {}
    first = 0
    for group in groups:
        for part in gate_slices(group):
            if part.tensor not in tensors:
                continue
            tensor = tensors[part.tensor]
            empty = torch.full((tensor.shape[part.dim],), none, device=tensor.device)
            gate = found.setdefault(part.tensor, {}).setdefault(part.dim, empty)
            numbers = first + part.block[:1] * group.size + np.arange(group.size)
            places = torch.from_numpy(part.indices).to(tensor.device)
            gate[places] = torch.from_numpy(numbers)[:, None].to(tensor.device)
        first += group.blocks * group.size
    return found

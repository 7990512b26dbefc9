"""Second-order importance that knows the refit: what a channel costs once others stand in for it.

Removing input channels S of a linear map W and re-solving the rest by least squares changes its
output by the part of the channels that the others cannot express. With A the second moments of
the layer's columns and G those of the loss gradient at its output, the loss grows by

    1/2 tr(G W_S ((A^-1)_SS)^-1 W_S^T)

per place (Optimal Brain Surgeon, Hassibi & Stork 1992, with the Kronecker-factored curvature
G x A of Martens & Grosse 2015). Channels leave one by one, the cheapest first; after each, W and
A^-1 are those of the smaller, refitted layer, so a channel gets dearer as those like it go.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from drc.graph.groups import Group
from drc.graph.readers import LinearMap, linear_maps, matrix_of
from drc.selection.calibration import Calibration, Scores
from drc.selection.criteria.base import Ranking, register
from drc.selection.criteria.moments import LayerMoments, Moments, collect, reader_of

DAMPING = 1e-3
"""Added to the diagonal of A, relative to its mean; the refit has the same pull."""


@register("dual_obs", by_crops=True)
def dual_obs(calibration: Calibration, ranking: Ranking) -> Scores:
    """What removing each channel adds to the loss when all cheaper ones are gone already.

    In squared units of the loss. Channels that no layer reads that can be refitted count by the
    second moments of their gates' gradients alone, correlations included.
    """
    moments = collect(calibration)
    layers = {n: m for n, m in linear_maps(calibration.model).items() if n in moments.layers}
    scores = {}
    for number, group in enumerate(calibration.graph.groups):
        rows = []
        for block in range(group.blocks):
            readers = _readers(group, block, layers, moments)
            rows.append(_eliminate(readers, moments.gates[number][block]))
        scores[group.name] = np.stack(rows)
    return scores


class _Reader:
    """One layer that reads the atoms, in the state after some have gone.

    Attributes:
        weight: G^1/2 W, `(outputs, columns)`, with the bias as last column where there is one.
        inverse: A^-1 of the columns that are left.
        columns: those of every atom, `(atoms, columns of an atom)`.
    """

    def __init__(self, weight: Tensor, moments: LayerMoments, columns: Tensor) -> None:
        width = weight.shape[1]  # without the constant where there is no bias to stand for it
        inputs = len(moments.columns) - 1
        damped = moments.columns[:width, :width].clone()
        damped.diagonal()[:inputs] += DAMPING * damped.diagonal()[:inputs].mean().clamp_min(1e-30)
        damped.diagonal()[inputs:] += 1e-9
        self.inverse = torch.linalg.inv(damped)
        self.weight = _root(moments.gradients) @ weight.double()
        self.columns = columns

    def costs(self) -> Tensor:
        """What each atom adds to the loss if it goes next, `(atoms,)`."""
        own = self.weight[:, self.columns].transpose(0, 1)
        pivot = self.inverse[self.columns[:, :, None], self.columns[:, None, :]]
        return 0.5 * (own * torch.linalg.solve(pivot, own, left=False)).sum((1, 2))

    def remove(self, atom: int) -> None:
        """Let the atom go and the others stand in for it."""
        mine = self.columns[atom]
        rows = self.inverse[mine]
        share = torch.linalg.solve(rows[:, mine], rows)
        self.weight -= self.weight[:, mine] @ share
        self.inverse -= rows.T @ share
        # What has gone must neither weigh nor make a pivot singular.
        self.weight[:, mine] = 0.0
        self.inverse[mine, :] = self.inverse[:, mine] = 0.0
        self.inverse[mine, mine] = 1.0


def _readers(
    group: Group, block: int, layers: dict[str, LinearMap], moments: Moments
) -> list[_Reader]:
    found = []
    for part in group.slices:
        name = reader_of(part, layers)
        mine = part.block == block
        if name is None or not mine.any():
            continue
        matrix = matrix_of(layers[name])
        kernel = matrix.shape[2]
        channels = torch.from_numpy(part.indices[:, mine])
        columns = (channels[:, :, None] * kernel + torch.arange(kernel)).flatten(1)
        weight, bias = matrix.flatten(1), layers[name].bias
        if bias is not None:
            weight = torch.cat((weight, bias.detach()[:, None]), 1)
        found.append(_Reader(weight.cpu(), moments.layers[name], columns))
    return found


def _eliminate(readers: list[_Reader], gates: np.ndarray) -> np.ndarray:
    """Scores `(atoms,)`, ascending in the order in which the atoms go."""
    atoms = len(gates)
    left = np.ones(atoms, dtype=bool)
    pull = 0.5 * gates.diagonal().copy()
    scores = np.zeros(atoms)
    highest = 0.0
    for rank in range(atoms):
        costs = pull + sum((reader.costs().numpy() for reader in readers), np.zeros(atoms))
        atom = int(np.argmin(np.where(left, costs, np.inf)))
        highest = max(highest, float(costs[atom]))
        # Equal scores would leave the order to chance.
        scores[atom] = highest * (1 + 1e-9 * rank) + 1e-300 * rank
        left[atom] = False
        pull += gates[:, atom]
        for reader in readers:
            reader.remove(atom)
    return scores


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T

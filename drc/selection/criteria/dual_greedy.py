"""The greedy channel selection of the DRC paper (Guo et al., arXiv 2207.07929), on any network.

Group by group, all channels are shut and then opened one at a time: next comes the one whose
weights, which are zero yet, have the largest gradient (Frobenius norm) of the squared error of the
layer's features to those of the dense network plus the dual regression loss. A few SGD steps on the
layer follow each choice. The layer is what reads the channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import TrainingError
from drc.core.runtime import eval_mode, forward_hooks
from drc.graph.groups import Group
from drc.graph.inputs import tensors_of
from drc.networks.copying import copy_of
from drc.selection.calibration import Calibration, Scores
from drc.selection.criteria.base import Ranking, register
from drc.selection.criteria.magnitude import add_powers
from drc.selection.crops import Batch, in_turn
from drc.selection.gates import gate_slices, regression_loss

Features = dict[str, list[Tensor]]
"""Module name -> its outputs, call by call."""


@register("dual_greedy", by_widths=True)
def dual_greedy(calibration: Calibration, ranking: Ranking) -> Scores:
    """Order of choice: of n channels the first chosen scores n, the next n - 1, and so on.

    The widths of the ranking say how many are chosen; without them all are. Those left over score
    less than 1, in the order of their last gradient norms. In a group that keeps all its channels
    none is chosen, and all score 1. Every block gets a channel of its own in each choice.

    Raises:
        TrainingError: the loss is not finite.
        DataError: the calibration crops differ in size.
    """
    with eval_mode(calibration.model):
        return _Selection(calibration, ranking).run()


class _Selection:
    """The network while channels are being chosen: groups seen before are cut to their choice."""

    def __init__(self, calibration: Calibration, ranking: Ranking) -> None:
        self.calibration, self.settings = calibration, ranking.settings
        self.pruned = copy_of(calibration.model).eval().requires_grad_(False)
        named = {**dict(self.pruned.named_parameters()), **dict(self.pruned.named_buffers())}
        self.tensors = {name: t for name, t in named.items() if t.is_floating_point()}
        self.left = {name: torch.ones_like(t, dtype=torch.bool) for name, t in self.tensors.items()}
        self.batches = in_turn(list(calibration.crops()), self.settings.greedy_batch)
        self.picks = {
            group.name: _picks(group, ranking.widths) for group in calibration.graph.groups
        }
        self.done = 0

    def run(self) -> Scores:
        """The scores of all groups, which are ranked in network order."""
        return {group.name: self._rank(group) for group in self.calibration.graph.groups}

    def _rank(self, group: Group) -> np.ndarray:
        scores, picks = np.ones((group.blocks, group.size)), self.picks[group.name]
        if not picks:
            return scores
        layer = _Layer(group, self.tensors, self.left)
        try:
            for pick in range(picks):
                norms = self._add(layer, next(self.batches))
                scores[layer.newest] = group.size - pick
                self._report()
        except TrainingError:
            raise TrainingError(
                f"the loss of dual_greedy is not finite at {group.name}; lower prune.greedy_lr, "
                "or use another criterion"
            ) from None
        rest = ~layer.chosen
        scores[rest] = norms[rest] / (1 + 2 * norms.max())
        layer.close(self.left)
        return scores

    def _add(self, layer: _Layer, batch: Batch) -> np.ndarray:
        """Open the best channel of every block and refit; returns the norms, `(blocks, atoms)`."""
        with torch.no_grad(), recorded(self.calibration.model, layer.owners) as wanted:
            self.calibration.model(batch[0])
        norms = layer.norms(self._gradients(layer, batch, wanted))
        layer.open(np.where(layer.chosen, -1.0, norms).argmax(1))
        for _ in range(self.settings.greedy_steps):
            layer.descend(self._gradients(layer, batch, wanted), self.settings.greedy_lr)
        return norms

    def _gradients(self, layer: _Layer, batch: Batch, wanted: Features) -> list[Tensor]:
        """Of squared feature error and dual regression loss, by the layer's weights."""
        lr, hr = batch
        with recorded(self.pruned, layer.owners) as found:
            outputs = self.pruned(lr)
        loss = regression_loss(self.calibration, outputs, lr, hr)
        for name in layer.owners:
            for features, truth in zip(found[name], wanted[name], strict=True):
                loss = loss + F.mse_loss(features, truth)
        if not torch.isfinite(loss):
            raise TrainingError("the squared error of features is not finite")
        self.calibration.passes.add(len(lr))
        gradients = torch.autograd.grad(loss, layer.weights, materialize_grads=True)
        # A statistic over channels that are all shut, as in contrast attention, has no gradient.
        return [torch.nan_to_num(gradient) for gradient in gradients]

    def _report(self) -> None:
        self.done += 1
        if self.calibration.progress:
            self.calibration.progress("ranking", self.done, sum(self.picks.values()), {})


def _picks(group: Group, widths: dict[str, int] | None) -> int:
    """How many channels of a group are chosen one by one: none where all of them stay."""
    if widths is None:
        return group.size
    width = widths.get(group.name, group.size)
    return 0 if width == group.size else width


class _Layer:
    """The weights that read one group, zero but for the channels chosen so far.

    Args:
        group: the group, all of whose channels are shut now.
        tensors: of the network; those of the layer change in place.
        left: by name, which entries of each tensor earlier groups left; only these are updated.

    Attributes:
        owners: names of the modules that own the weights.
        weights: the tensors, which are asked for gradients until the layer is closed.
        chosen: `(blocks, atoms)` bool.
        newest: row and column indices of the channels opened last.
    """

    def __init__(self, group: Group, tensors: dict[str, Tensor], left: dict[str, Tensor]) -> None:
        self.group = group
        self.gates = [part for part in gate_slices(group) if part.tensor in tensors]
        self.names = sorted({part.tensor for part in self.gates})
        self.owners = sorted({name.rpartition(".")[0] for name in self.names})
        self.weights = [tensors[name].requires_grad_() for name in self.names]
        self.chosen = np.zeros((group.blocks, group.size), dtype=bool)
        self._dense = [weight.detach().clone() for weight in self.weights]
        self._left = [left[name] for name in self.names]
        self._mask = [torch.ones_like(of_left) for of_left in self._left]
        self._show()

    def open(self, atoms: np.ndarray) -> None:
        """Give one channel of every block the weights it has in the dense network."""
        self.newest = (np.arange(self.group.blocks), atoms)
        self.chosen[self.newest] = True
        self._show()

    def norms(self, gradients: Sequence[Tensor]) -> np.ndarray:
        """Frobenius norm of the gradient by every channel's weights, `(blocks, atoms)`."""
        squares = np.zeros((self.group.blocks, self.group.size))
        of_name = {
            n: g * left for n, g, left in zip(self.names, gradients, self._left, strict=True)
        }
        for part in self.gates:
            add_powers(squares, part, of_name[part.tensor], 2)
        return np.sqrt(squares)

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor], rate: float) -> None:
        """One SGD step on what is open, by `rate` of a tensor's norm.

        A rate that is relative (You et al., arXiv 1708.03888) suits all layers, and pixels in 0..1
        as in 0..255, between which the gradient of a squared error differs 65,025 times.
        """
        parts = zip(self.weights, gradients, self._mask, self._left, strict=True)
        for weight, gradient, mask, left in parts:
            step = gradient * (mask & left)
            length = step.norm()
            if length > 0:
                weight -= rate * weight.norm() / length * step

    def close(self, left: dict[str, Tensor]) -> None:
        """Leave the layer as it is, and take what was not chosen out of `left`."""
        for weight in self.weights:
            weight.requires_grad_(False)
        for part in self.group.slices:
            for column, block in enumerate(part.block.tolist() if part.tensor in left else ()):
                gone = torch.from_numpy(part.indices[~self.chosen[block], column])
                left[part.tensor].index_fill_(part.dim, gone.to(left[part.tensor].device), False)

    @torch.no_grad()
    def _show(self) -> None:
        """Shut what is not chosen; what has become open starts from its dense weights."""
        before, self._mask = self._mask, self._open_entries()
        parts = zip(self.weights, self._dense, before, self._mask, strict=True)
        for weight, dense, old, new in parts:
            weight.copy_(torch.where(new & ~old, dense, weight * new))

    def _open_entries(self) -> list[Tensor]:
        masks = {n: torch.ones_like(m) for n, m in zip(self.names, self._mask, strict=True)}
        for part in self.gates:
            shut = torch.from_numpy(part.indices[~self.chosen[part.block[0]]].ravel())
            mask = masks[part.tensor]
            mask.index_fill_(part.dim, shut.to(mask.device), False)
        return list(masks.values())


@contextmanager
def recorded(model: nn.Module, names: Sequence[str]) -> Iterator[Features]:
    """What the named modules give while the block runs; copies, as later layers may write in place.

    A module whose weights are used without calling it gives nothing.
    """
    found: Features = {name: [] for name in names}

    def keep(name: str, _: object, outputs: object) -> None:
        found[name] += [t.clone() for t in tensors_of(outputs) if t.is_floating_point()]

    with forward_hooks({name: model.get_submodule(name) for name in names}, keep):
        yield found

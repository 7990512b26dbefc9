"""What a network costs as an exact function of its group widths."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from torch import nn

from drc.graph.groups import ChannelGraph

Widths = Mapping[str, int]


class CostModel:
    """Parameters, or MACs, of the network with given widths.

    The size of a tensor's dimension is linear in the widths, and the cost of a tensor is the
    product of its sizes times a constant (1 for parameters; MACs per weight for MACs), so the
    sum over tensors is exact, whatever groups meet in one tensor.

    Args:
        graph: the channel groups.
        model: the network that was traced.
        per_tensor: dense cost by parameter name; by default its number of elements. What stands
            under another name is cost that no width changes.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        per_tensor: Mapping[str, float] | None = None,
    ) -> None:
        self.names = [group.name for group in graph.groups]
        self.dense = np.asarray([group.size for group in graph.groups], dtype=np.float64)
        shapes, first_name = _parameters(model)
        if per_tensor is None:
            per_tensor = {name: p.numel() for name, p in model.named_parameters()}
        self._constant = sum(c for n, c in per_tensor.items() if n not in shapes)
        tensors = [name for name in per_tensor if name in shapes]
        self._coefficient = np.asarray(
            [per_tensor[n] / max(1, int(np.prod(shapes[n]))) for n in tensors], dtype=np.float64
        )
        rows = [first_name[name] for name in tensors]
        self._offset, self._slope = _linear_sizes(graph, rows, shapes)
        uses = np.asarray([slope != 0 for slope in self._slope]).sum(0)
        self._in_two_dims = np.flatnonzero((uses > 1).any(0))

    def __call__(self, widths: Widths | np.ndarray) -> int:
        """The cost at `widths`, by group name (missing ones are dense) or in group order."""
        sizes = self._sizes(self._vector(widths))
        return round(self._constant + float(self._coefficient @ sizes.prod(1)))

    def savings(self, widths: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Cost saved by narrowing one group alone from `widths` by its entry of `steps`, for each.

        Exact, also where a group fills two dimensions of one tensor.
        """
        sizes = self._sizes(widths)
        saved = np.zeros(len(self.names))
        full = self._coefficient * sizes.prod(1)
        for dim in range(sizes.shape[1]):
            others = self._coefficient * np.delete(sizes, dim, 1).prod(1)
            saved += steps * (self._slope[dim].T @ others)
        for group in self._in_two_dims:
            one = widths.copy()
            one[group] -= steps[group]
            saved[group] = full.sum() - float(self._coefficient @ self._sizes(one).prod(1))
        return saved

    def meeting_groups(self) -> np.ndarray:
        """A small set of groups whose widths, once fixed, make the cost of the others add up.

        Groups meet where they fill different dimensions of one tensor. The set covers every
        meeting; it is found greedily, most meetings first.
        """
        used = [slope != 0 for slope in self._slope]
        meets = np.zeros((len(self.names), len(self.names)), dtype=bool)
        for first, second in itertools.permutations(used, 2):
            meets |= (first.T.astype(int) @ second.astype(int)) > 0
        chosen = []
        while meets.any():
            group = int((meets.sum(1) + len(self.names) * meets.diagonal()).argmax())
            meets[group, :] = meets[:, group] = False
            chosen.append(group)
        return np.asarray(sorted(chosen), dtype=int)

    def _vector(self, widths: Widths | np.ndarray) -> np.ndarray:
        if isinstance(widths, np.ndarray):
            return widths.astype(np.float64)
        pairs = zip(self.names, self.dense, strict=True)
        return np.asarray([widths.get(name, size) for name, size in pairs], dtype=np.float64)

    def _sizes(self, widths: np.ndarray) -> np.ndarray:
        """Length of every dimension of every tensor, `(tensors, dims)`; missing dims are 1."""
        columns = [self._offset[:, d] + s @ widths for d, s in enumerate(self._slope)]
        return np.stack(columns, 1)


def _parameters(model: nn.Module) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by every name of every parameter, and the first name of each shared one."""
    first: dict[int, str] = {}
    shapes, first_name = {}, {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shapes[name] = tuple(parameter.shape)
        first_name[name] = first.setdefault(id(parameter), name)
    return shapes, first_name


def _linear_sizes(
    graph: ChannelGraph, tensors: list[str], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Offsets `(tensors, dims)` and, per dim, slopes `(tensors, groups)` of the sizes."""
    rank = max((len(shapes[name]) for name in tensors), default=1) or 1
    offset = np.ones((len(tensors), rank))
    for row, name in enumerate(tensors):
        offset[row, : len(shapes[name])] = shapes[name]
    slope = [np.zeros((len(tensors), len(graph.groups))) for _ in range(rank)]
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(tensors):
        rows_of[name].append(row)
    for column, group in enumerate(graph.groups):
        for part in group.slices:
            for row in rows_of[part.tensor]:
                count = part.indices.shape[1]
                slope[part.dim][row, column] += count
                offset[row, part.dim] -= count * group.size
    return offset, slope

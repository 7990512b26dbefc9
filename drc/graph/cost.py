"""What a network costs as an exact function of its group widths."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import nn

from drc.graph.groups import ChannelGraph

Widths = Mapping[str, int]


class Cost(Protocol):
    """What a budget limits, as a function of the group widths.

    Attributes:
        names: of the groups, in graph order.
        dense: their dense widths.
    """

    names: list[str]
    dense: np.ndarray

    def __call__(self, widths: Widths | np.ndarray) -> int:
        """The cost at `widths`, by group name (missing ones are dense) or in group order."""

    def of_options(self, widths: np.ndarray, options: Sequence[np.ndarray]) -> list[np.ndarray]:
        """By how much the cost changes when one group alone goes from `widths` to an option.

        Args:
            widths: of all groups, in group order.
            options: per group, the widths to price; an empty array asks for nothing.

        Returns:
            Per group, the changes, `(options,)`; negative where the cost falls.
        """

    def meeting_groups(self) -> np.ndarray:
        """A small set of groups whose widths, once fixed, make the changes of the others add up."""


class LinearSizes:
    """The lengths of the dimensions of parameters, which are linear in the group widths.

    Args:
        graph: the channel groups.
        model: the network that was traced.
        tensors: names of its parameters; one row each.
    """

    def __init__(self, graph: ChannelGraph, model: nn.Module, tensors: Sequence[str]) -> None:
        shapes, first_name = _parameters(model)
        rows = [first_name[name] for name in tensors]
        self.groups = len(graph.groups)
        self.offset, self.slope = _linear_sizes(graph, rows, shapes)

    def at(self, widths: np.ndarray) -> np.ndarray:
        """Length of every dimension of every tensor, `(tensors, dims)`; missing dims are 1."""
        columns = [self.offset[:, d] + s @ widths for d, s in enumerate(self.slope)]
        return np.stack(columns, 1)

    def in_two_dims(self) -> np.ndarray:
        """The groups that fill more than one dimension of some tensor."""
        uses = np.asarray([slope != 0 for slope in self.slope]).sum(0)
        return np.flatnonzero((uses > 1).any(0))

    def meeting_groups(self, side_by_side: bool = False) -> np.ndarray:
        """A small set of groups that covers every meeting of two in one tensor.

        Groups meet where they fill different dimensions of one tensor, and with `side_by_side`
        also where they share one. The set is found greedily, most meetings first.
        """
        used = [slope != 0 for slope in self.slope]
        meets = np.zeros((self.groups, self.groups), dtype=bool)
        for first, second in itertools.permutations(used, 2):
            meets |= (first.T.astype(int) @ second.astype(int)) > 0
        for shared in used if side_by_side else []:
            together = (shared.T.astype(int) @ shared.astype(int)) > 0
            meets |= together & ~np.eye(self.groups, dtype=bool)
        chosen = []
        while meets.any():
            group = int((meets.sum(1) + self.groups * meets.diagonal()).argmax())
            meets[group, :] = meets[:, group] = False
            chosen.append(group)
        return np.asarray(sorted(chosen), dtype=int)


def as_vector(widths: Widths | np.ndarray, names: Sequence[str], dense: np.ndarray) -> np.ndarray:
    """Widths in group order, `(groups,)` float64; groups that are not named are dense."""
    if isinstance(widths, np.ndarray):
        return widths.astype(np.float64)
    pairs = zip(names, dense, strict=True)
    return np.asarray([widths.get(name, size) for name, size in pairs], dtype=np.float64)


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
        if per_tensor is None:
            per_tensor = {name: p.numel() for name, p in model.named_parameters()}
        shapes, _ = _parameters(model)
        self._constant = sum(c for n, c in per_tensor.items() if n not in shapes)
        tensors = [name for name in per_tensor if name in shapes]
        self._coefficient = np.asarray(
            [per_tensor[n] / max(1, int(np.prod(shapes[n]))) for n in tensors], dtype=np.float64
        )
        self._sizes = LinearSizes(graph, model, tensors)
        self._in_two_dims = self._sizes.in_two_dims()

    def __call__(self, widths: Widths | np.ndarray) -> int:
        """The cost at `widths`, by group name (missing ones are dense) or in group order."""
        return round(self._exact(as_vector(widths, self.names, self.dense)))

    def of_options(self, widths: np.ndarray, options: Sequence[np.ndarray]) -> list[np.ndarray]:
        """By how much the cost changes when one group alone goes to an option; see `Cost`."""
        slopes = self.savings(widths, np.ones(len(self.names)))
        pairs = zip(slopes, options, widths, strict=True)
        changes = [slope * (option - width) for slope, option, width in pairs]
        before = self._exact(widths)
        for group in self._in_two_dims:
            changes[group] = np.asarray(
                [self._exact(_with(widths, group, w)) - before for w in options[group]]
            )
        return changes

    def savings(self, widths: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Cost saved by narrowing one group alone from `widths` by its entry of `steps`, for each.

        Exact, also where a group fills two dimensions of one tensor.
        """
        sizes = self._sizes.at(widths)
        saved = np.zeros(len(self.names))
        for dim, slope in enumerate(self._sizes.slope):
            others = self._coefficient * np.delete(sizes, dim, 1).prod(1)
            saved += steps * (slope.T @ others)
        before = self._exact(widths)
        for group in self._in_two_dims:
            saved[group] = before - self._exact(_with(widths, group, widths[group] - steps[group]))
        return saved

    def meeting_groups(self) -> np.ndarray:
        """A small set of groups whose widths, once fixed, make the cost of the others add up."""
        return self._sizes.meeting_groups()

    def _exact(self, widths: np.ndarray) -> float:
        return self._constant + float(self._coefficient @ self._sizes.at(widths).prod(1))


def _with(widths: np.ndarray, group: int, width: float) -> np.ndarray:
    """A copy of `widths` in which one group has another width."""
    changed = widths.copy()
    changed[group] = width
    return changed


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

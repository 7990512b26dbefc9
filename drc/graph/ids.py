"""Channel ids: one integer per (tensor, dimension, index), and what was learnt about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

NO_CHANNEL = 0
"""The id of a value that belongs to no channel: padding, constants, untracked tensors."""

_COMPRESS_ABOVE = 4096


@dataclass(frozen=True)
class Slot:
    """The ids of one dimension of one parameter or buffer: `start` to `start + size - 1`."""

    tensor: str
    dim: int
    start: int
    size: int


@dataclass(frozen=True)
class Resolution:
    """The classes of tied ids.

    Attributes:
        label: class of each id, `(ids,)`.
        frozen: reason by class, for the classes that must stay whole.
        read: the classes that some contraction sums over.
        readers: numbers of the slots that are the input dimension of a weight.
    """

    label: np.ndarray
    frozen: dict[int, str]
    read: set[int]
    readers: set[int]


class IdSpace:
    """Hands out ids and collects which must go together, which must stay and which are read.

    Ties are only recorded while the network runs and solved once at the end, as the connected
    components of a graph, so that recording stays as cheap as a forward pass.
    """

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self._next = NO_CHANNEL + 1
        self._pairs: list[Tensor] = []
        self._frozen: list[tuple[Tensor, str]] = []
        self._read: list[Tensor] = []
        self._reader: list[Tensor] = []

    def allocate(self, tensor: str, dim: int, size: int) -> Tensor:
        """Return `size` new ids, `(size,)` int64."""
        slot = Slot(tensor, dim, self._next, size)
        self.slots.append(slot)
        self._next += size
        return torch.arange(slot.start, slot.start + size)

    def tie(self, first: Tensor, second: Tensor) -> None:
        """Record that ids at equal positions (after broadcasting) are removed together."""
        first, second = torch.broadcast_tensors(first, second)
        for dim in range(first.ndim - 1, -1, -1):
            if _repeats(first, dim) and _repeats(second, dim):
                first, second = first.select(dim, 0), second.select(dim, 0)
        pairs = torch.stack((first.reshape(-1), second.reshape(-1)))
        pairs = pairs[:, (pairs[0] != pairs[1]) & (pairs != NO_CHANNEL).all(0)]
        if pairs.shape[1] > _COMPRESS_ABOVE:
            pairs = pairs.unique(dim=1)
        if pairs.shape[1]:
            self._pairs.append(pairs)

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Record that these ids must never be removed, and why."""
        self._frozen.append((distinct(ids), reason))

    def mark_read(self, ids: Tensor, by_weight: bool = False) -> None:
        """Record that a contraction sums over these ids, so that removing them is a cut.

        `by_weight` says that the ids are those of a weight's own input dimension.
        """
        self._read.append(distinct(ids))
        if by_weight:
            self._reader.append(self._read[-1])

    def resolve(self) -> Resolution:
        """Solve the ties."""
        pairs = torch.cat(self._pairs, 1).numpy() if self._pairs else np.zeros((2, 0), np.int64)
        size = self._next
        ones = np.ones(pairs.shape[1], dtype=np.int8)
        graph = coo_matrix((ones, (pairs[0], pairs[1])), shape=(size, size))
        _, label = connected_components(graph, directed=False)
        frozen: dict[int, str] = {}
        for ids, reason in self._frozen:
            for cls in np.unique(label[ids.numpy()]).tolist():
                frozen.setdefault(cls, reason)
        read = torch.cat([torch.zeros(0, dtype=torch.int64), *self._read]).numpy()
        return Resolution(label, frozen, set(label[read].tolist()), self._reader_slots())

    def _reader_slots(self) -> set[int]:
        ids = torch.cat([torch.zeros(0, dtype=torch.int64), *self._reader]).numpy()
        starts = np.asarray([slot.start for slot in self.slots])
        return set((np.searchsorted(starts, np.unique(ids), side="right") - 1).tolist())


def distinct(ids: Tensor) -> Tensor:
    """The different ids in `ids`, without NO_CHANNEL."""
    for dim in range(ids.ndim - 1, -1, -1):
        if _repeats(ids, dim):
            ids = ids.select(dim, 0)
    ids = ids.unique()
    return ids[ids != NO_CHANNEL]


def varies(ids: Tensor, dim: int) -> bool:
    """Whether the ids differ along `dim`."""
    if ids.shape[dim] <= 1 or ids.stride(dim) == 0:
        return False
    return bool((ids != ids.narrow(dim, 0, 1)).any())


def varying_dims(ids: Tensor) -> set[int]:
    return {dim for dim in range(ids.ndim) if varies(ids, dim)}


def _repeats(ids: Tensor, dim: int) -> bool:
    return ids.shape[dim] == 1 or (ids.shape[dim] > 1 and ids.stride(dim) == 0)

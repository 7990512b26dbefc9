"""Channel ids: one integer per (tensor, dimension, index), and what was learnt about them.

An *id map* belongs to one tensor and has its rank. Dimensions along which the ids do not change
have length 1 in it, so that a map costs the memory of its channels, not of its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from drc.core.errors import ModelError

IdMaps = list[Tensor]
"""What a tensor carries: one id map for each kind of channel that varies in it."""

NO_CHANNEL = 0
"""The id of a value that belongs to no channel: padding, constants, untracked tensors."""

NO_CLASS = -1

PER_ROW = "counts heads or other parts that stay, one for several channels"
FIXED_COUNT = "every group of the convolution reads as many channels"
CONSTANT = "reads a channel that is constant or not traced"

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
        grids: class by element of the tensors that must stay rectangular, as `(rows, columns)`;
            every row must lose the same number of columns. NO_CLASS marks elements of none.
    """

    label: np.ndarray
    frozen: dict[int, str]
    read: set[int]
    readers: set[int]
    grids: list[np.ndarray]


class IdSpace:
    """Hands out ids and collects which must go together, which must stay and which are read.

    Ties are only recorded while the network runs and solved once at the end, as the connected
    components of a graph, so that recording stays as cheap as a forward pass.

    Args:
        known: the slots of a network whose ties have been solved: it hands out their ids, whatever
            the order in which they are asked for, and collects nothing.
    """

    def __init__(self, known: Sequence[Slot] | None = None) -> None:
        self._collects = known is None
        self.slots: list[Slot] = list(known or ())
        self._slot_of = {(slot.tensor, slot.dim): slot for slot in self.slots}
        self._next = NO_CHANNEL + 1 + sum(slot.size for slot in self.slots)
        self._pairs: list[Tensor] = []
        self._frozen: list[tuple[Tensor, str]] = []
        self._read: list[Tensor] = []
        self._reader: list[Tensor] = []
        self._grids: dict[bytes, np.ndarray] = {}
        self._rows: set[bytes] = set()
        self.has_statistics = False
        self._nested: list[Tensor] = []

    def allocate(self, tensor: str, dim: int, size: int) -> Tensor:
        """Return the ids of a dimension, `(size,)` int64: new ones when it has none yet.

        Raises:
            ModelError: it has ids for another size, or none in a network that is known.
        """
        slot = self._slot_of.get((tensor, dim))
        if slot is not None and slot.size != size:
            raise ModelError(
                f"dimension {dim} of {tensor} is {size} long, and was {slot.size} when the network "
                "was traced"
            )
        if slot is None and not self._collects:
            raise ModelError(
                f"dimension {dim} of {tensor} was not there when the network was traced"
            )
        if slot is None:
            slot = Slot(tensor, dim, self._next, size)
            self._slot_of[tensor, dim] = slot
            self.slots.append(slot)
            self._next += size
        return torch.arange(slot.start, slot.start + size)

    def tie(self, first: Tensor, second: Tensor) -> None:
        """Record that ids at equal positions (after broadcasting) are removed together."""
        if not self._collects:
            return
        first, second = torch.broadcast_tensors(first, second)
        pairs = torch.stack((first.reshape(-1), second.reshape(-1)))
        pairs = pairs[:, (pairs[0] != pairs[1]) & (pairs != NO_CHANNEL).all(0)]
        if pairs.shape[1]:
            self._pairs.append(_distinct_pairs(pairs))

    def nest(self, coarse: Tensor, fine: Tensor) -> None:
        """Record ids that each go with several: a scale per head with the channels of the head.

        They are tied where the several turn out to be one channel (the parts of one that
        PixelShuffle spreads over pixels), and must stay otherwise.
        """
        if not self._collects:
            return
        coarse, fine = torch.broadcast_tensors(coarse, fine)
        pairs = torch.stack((coarse.reshape(-1), fine.reshape(-1)))
        pairs = pairs[:, (pairs != NO_CHANNEL).all(0)]
        if pairs.shape[1]:
            self._nested.append(_distinct_pairs(pairs))

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Record that these ids must never be removed, and why."""
        if self._collects:
            self._frozen.append((distinct(ids), reason))

    def mark_read(self, ids: Tensor, by_weight: bool = False) -> None:
        """Record that a contraction sums over these ids, so that removing them is a cut.

        `by_weight` says that the ids are those of a weight's own input dimension.
        """
        if not self._collects:
            return
        self._read.append(distinct(ids))
        if by_weight:
            self._reader.append(self._read[-1])

    def keep_rectangular(self, ids: Tensor) -> None:
        """Record an id map that varies along several dimensions: what a cut leaves is a grid too.

        The last dimension that varies is the one to lose channels, equally many in every row.
        """
        dims = [dim for dim in range(ids.ndim) if ids.shape[dim] > 1]
        if self._collects and len(dims) > 1:
            rows = distinct_rows(ids.reshape(-1, ids.shape[dims[-1]]).numpy())
            self._grids.setdefault(rows.tobytes(), rows)
            self._rows.update(row.tobytes() for row in rows)

    def loses_along(self, ids: Tensor, dim: int) -> bool:
        """Whether `dim` is one along which some grid of these ids loses channels."""
        row = ids.movedim(dim, -1).reshape(-1, ids.shape[dim])[0].contiguous()
        return row.numpy().tobytes() in self._rows

    def mark_mixed(self, ids: Tensor) -> None:
        """Record that a statistic is taken over these ids: a mean, a softmax, a layer norm."""
        self.mark_read(ids)
        self.has_statistics = True

    def resolve(self) -> Resolution:
        """Solve the ties."""
        label = self._classes()
        frozen: dict[int, str] = {}
        reasons = [*self._frozen, *((ids, PER_ROW) for ids in self._unnested(label))]
        reasons.sort(key=lambda entry: not entry[1].startswith("network"))  # what no fault keeps
        for ids, reason in reasons:
            for cls in np.unique(label[ids.numpy()]).tolist():
                frozen.setdefault(cls, reason)
        read = torch.cat([torch.zeros(0, dtype=torch.int64), *self._read]).numpy()
        grids = [
            np.where(rows == NO_CHANNEL, NO_CLASS, label[rows]) for rows in self._grids.values()
        ]
        return Resolution(label, frozen, set(label[read].tolist()), self._reader_slots(), grids)

    def _classes(self) -> np.ndarray:
        """Class of each id. Nested ids whose several partners are one class join it."""
        pairs = torch.cat([torch.zeros((2, 0), dtype=torch.int64), *self._pairs], 1).numpy()
        nested = torch.cat([torch.zeros((2, 0), dtype=torch.int64), *self._nested], 1).numpy()
        while True:
            ones = np.ones(pairs.shape[1], dtype=np.int8)
            graph = coo_matrix((ones, (pairs[0], pairs[1])), shape=(self._next, self._next))
            _, label = connected_components(graph, directed=False)
            single = ~np.isin(label[nested[0]], _with_several(label, nested))
            joined = nested[:, single & (label[nested[0]] != label[nested[1]])]
            if not joined.size:
                return label
            pairs = np.concatenate((pairs, joined), 1)

    def _unnested(self, label: np.ndarray) -> list[Tensor]:
        """The nested ids that have several partners."""
        nested = torch.cat([torch.zeros((2, 0), dtype=torch.int64), *self._nested], 1)
        several = np.isin(label[nested[0].numpy()], _with_several(label, nested.numpy()))
        return [nested[0][torch.from_numpy(several)]] if several.any() else []

    def _reader_slots(self) -> set[int]:
        ids = torch.cat([torch.zeros(0, dtype=torch.int64), *self._reader]).numpy()
        starts = np.asarray([slot.start for slot in self.slots])
        return set((np.searchsorted(starts, np.unique(ids), side="right") - 1).tolist())


def _with_several(label: np.ndarray, nested: np.ndarray) -> np.ndarray:
    """The classes of nested ids that have partners of more than one class."""
    first, second = label[nested].astype(np.int64)
    pairs = np.unique(first << 32 | second)
    classes, count = np.unique(pairs >> 32, return_counts=True)
    return classes[count > 1]


def distinct_rows(rows: np.ndarray) -> np.ndarray:
    """The different rows of an integer matrix, in order of first appearance."""
    return np.stack(list({row.tobytes(): row for row in np.ascontiguousarray(rows)}.values()))


def _distinct_pairs(pairs: Tensor) -> Tensor:
    """The different columns of `(2, n)` ids, as soon as sorting them pays."""
    if pairs.shape[1] < _COMPRESS_ABOVE:
        return pairs
    codes = (pairs[0] << 32 | pairs[1]).unique()
    return torch.stack((codes >> 32, codes & 0xFFFFFFFF))


def distinct(ids: Tensor) -> Tensor:
    """The different ids in `ids`, without NO_CHANNEL."""
    ids = ids.unique()
    return ids[ids != NO_CHANNEL]


def compact(ids: Tensor) -> Tensor:
    """Shrink every dimension along which the ids do not change to length 1."""
    full = ids.numel()
    for dim in range(ids.ndim):
        if ids.shape[dim] > 1 and not _changes(ids, dim):
            ids = ids.narrow(dim, 0, 1)
    return ids.clone() if ids.numel() < full else ids


def solid(ids: Tensor) -> Tensor:
    """An id map without the dimensions along which only gaps (NO_CHANNEL) come and go."""
    for dim in range(ids.ndim):
        if ids.shape[dim] > 1:
            most = ids.amax(dim, keepdim=True)
            if bool(((ids == most) | (ids == NO_CHANNEL)).all()):
                ids = most
    return ids


def varying_dims(ids: Tensor) -> set[int]:
    """The dimensions along which the ids of a map change."""
    return {dim for dim, size in enumerate(ids.shape) if size > 1}


def _changes(ids: Tensor, dim: int) -> bool:
    if ids.stride(dim) == 0:
        return False
    # Channels mostly differ from the first index to the second: that is quick to see, and
    # quicker by numpy, for maps are small.
    rows = np.moveaxis(ids.numpy(), dim, 0)
    return bool((rows[0] != rows[1]).any()) or bool((rows[2:] != rows[0]).any())

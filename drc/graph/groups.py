"""From solved ids to channel groups: lists of equal atoms, each removable on its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from drc.graph.ids import CONSTANT, FIXED_COUNT, IdSpace, Resolution, Slot
from drc.graph.rectangles import Alignment, align
from drc.graph.sizes.calls import SizeCall

_NO_CHANNELS = (
    "nothing reads it", "looked up by position", "meets a dimension that carries no", CONSTANT,
    FIXED_COUNT,
)  # fmt: skip
"""How reasons begin that make a dimension of one tensor alone no channel dimension at all."""


@dataclass(frozen=True)
class Slice:
    """The indices one atom occupies in one dimension of one parameter or buffer.

    Attributes:
        tensor: its name in the state dict.
        dim: the dimension.
        indices: per atom of the group, the indices, `(atoms, count)`.
        read: whether a contraction sums over this dimension.
        block: to which block of the group each column of `indices` belongs, `(count,)`.
    """

    tensor: str
    dim: int
    indices: np.ndarray
    read: bool
    block: np.ndarray


@dataclass(frozen=True)
class Group:
    """Channels that can be removed one by one, each with all its slices.

    Attributes:
        name: the module that writes the channels, unique in the graph.
        size: number of atoms.
        slices: where the atoms live.
        blocks: parts (heads, halves, groups of a convolution) that must lose equally many
            channels, each its own: an atom has one channel in every block, and which channels of
            the blocks go together is free.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    blocks: int = 1


@dataclass(frozen=True)
class Frozen:
    """Channels that stay, and why."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class ChannelGraph:
    """All channel groups of one network.

    Attributes:
        groups: the removable ones, in the order of the network's parameters.
        frozen: the rest.
        sizes: length of every dimension that has ids, by (tensor, dim).
        slots: where the ids of every such dimension begin.
        calls: what was given sizes that a cut may change.
        label: class of each id, `(ids,)`.
        has_statistics: whether some op takes a statistic over channels.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    sizes: dict[tuple[str, int], int] = field(repr=False)
    slots: tuple[Slot, ...] = field(default=(), repr=False)
    calls: tuple[SizeCall, ...] = field(default=(), repr=False)
    label: np.ndarray = field(default_factory=lambda: np.zeros(1, int), repr=False)
    has_statistics: bool = True

    def __getitem__(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def freeze(self, reasons: dict[str, str]) -> ChannelGraph:
        """A graph in which the named groups are frozen for the given reasons."""
        kept = tuple(g for g in self.groups if g.name not in reasons)
        lost = [Frozen(g.name, g.size, reasons[g.name]) for g in self.groups if g.name in reasons]
        return replace(self, groups=kept, frozen=(*self.frozen, *lost))

    def showing_dense(self, touched: np.ndarray) -> ChannelGraph:
        """A graph whose cuts let the forward see dense lengths where it reads those of channels.

        Args:
            touched: whether each id is among the channels meant, `(ids,)`.
        """
        meant = [
            c.spare and any(touched[ids.numpy()].any() for ids in c.source) for c in self.calls
        ]
        pairs = zip(self.calls, meant, strict=True)
        calls = tuple(replace(call, spare=False) if dense else call for call, dense in pairs)
        return replace(self, calls=calls) if any(meant) else self

    def alive(self, removed: Mapping[str, Mapping[int, set[int]]]) -> np.ndarray:
        """Which ids stay, `(ids,)`, when these indices of these dimensions of tensors go.

        An id goes with its class, so the inputs' own ids and those of no tensor are right too.
        """
        gone = np.zeros(len(self.label), dtype=bool)
        for slot in self.slots:
            indices = removed.get(slot.tensor, {}).get(slot.dim)
            if indices:
                gone[slot.start + np.asarray(sorted(indices))] = True
        dead = np.zeros(int(self.label.max(initial=0)) + 1, dtype=bool)
        dead[self.label[gone]] = True
        return ~dead[self.label]


def find_groups(space: IdSpace, calls: Sequence[SizeCall] = ()) -> ChannelGraph:
    """Sort the classes of tied ids into groups of atoms with the same signature.

    An atom is removable when no id in it is frozen, some contraction reads it, and its group
    has more than one atom (a layer cannot lose its only channel).
    """
    resolution = space.resolve()
    groups, frozen = _Builder(space.slots, resolution, align(resolution)).build()
    sizes = {(slot.tensor, slot.dim): slot.size for slot in space.slots}
    slots, label, mixes = tuple(space.slots), resolution.label, space.has_statistics
    return ChannelGraph(groups, frozen, sizes, slots, tuple(calls), label, mixes)


class _Builder:
    """Puts atoms with equal signatures together.

    Every index of every slot is one entry; entries are sorted by atom, slot, block and index, so
    that an atom is a run of entries.
    """

    def __init__(self, slots: Sequence[Slot], resolution: Resolution, alignment: Alignment) -> None:
        self.slots, self.resolution, self.alignment = slots, resolution, alignment
        ids = _joined([np.arange(slot.start, slot.start + slot.size) for slot in slots])
        number = np.repeat(np.arange(len(slots)), [slot.size for slot in slots])
        index = _joined([np.arange(slot.size) for slot in slots])
        atom, block = alignment.atom[ids], alignment.block[ids]
        order = np.lexsort((index, block, number, atom))
        self.number, self.index, self.block = number[order], index[order], block[order]
        atoms, self._start, self._count = np.unique(
            atom[order], return_index=True, return_counts=True
        )
        _, first = np.unique(atom, return_index=True)
        self.atoms = atoms
        self.in_order = np.argsort(first, kind="stable").tolist()
        self.reason: dict[int, str] = {}
        for cls, reason in resolution.frozen.items():
            self.reason.setdefault(int(alignment.of_class[cls]), reason)
        self.read = {int(alignment.of_class[cls]) for cls in resolution.read}

    def build(self) -> tuple[tuple[Group, ...], tuple[Frozen, ...]]:
        loose: dict[tuple, list[int]] = defaultdict(list)
        stuck: dict[bytes, list[int]] = defaultdict(list)
        for position in self.in_order:
            atom, signature = int(self.atoms[position]), self._numbers(position).tobytes()
            if atom not in self.reason and atom in self.read:
                loose[signature, self.alignment.rows.get(atom, ())].append(position)
            else:
                stuck[signature].append(position)
        frozen = [
            Frozen(self._name(positions[0]), len(positions), self._why(positions))
            for positions in stuck.values()
            if self._is_channel(positions[0], self._why(positions))
        ]
        groups, taken = [], Counter[str]()
        for positions in sorted(loose.values(), key=lambda p: tuple(self._numbers(p[0]))):
            name = self._name(positions[0])
            if len(positions) == 1:
                frozen.append(Frozen(name, 1, "a layer cannot lose its only channel"))
                continue
            taken[name] += 1
            unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
            groups.append(self._group(unique, positions))
        return tuple(groups), tuple(frozen)

    def _numbers(self, position: int) -> np.ndarray:
        """The slots of an atom, ascending, each as often as the atom has indices there.

        Args:
            position: of the atom, among `atoms`.
        """
        start = self._start[position]
        return self.number[start : start + self._count[position]]

    def _group(self, name: str, positions: list[int]) -> Group:
        entries = self._start[positions][:, None] + np.arange(self._count[positions[0]])
        numbers, index, block = self.number[entries[0]], self.index[entries], self.block[entries]
        if not (block == block[:1]).all():
            # The atoms do not all have the same blocks in the same order: one block for all.
            index, block = _sorted_within(index, numbers), np.zeros_like(block)
        rank = np.unique(block[0], return_inverse=True)[1]
        slices = [
            Slice(
                self.slots[number].tensor,
                self.slots[number].dim,
                index[:, numbers == number],
                number in self.resolution.readers,
                rank[numbers == number],
            )
            for number in np.unique(numbers).tolist()
        ]
        return Group(name, len(positions), tuple(slices), int(rank.max()) + 1)

    def _name(self, position: int) -> str:
        """The module of the first writing slot, else of the first slot."""
        numbers = self._numbers(position).tolist()
        inputs = [n for n in numbers if self.slots[n].tensor.startswith("<input")]
        writers = [n for n in numbers if n not in self.resolution.readers and n not in inputs]
        tensor = self.slots[(writers or numbers)[0]].tensor
        return tensor.rpartition(".")[0] or tensor

    def _why(self, positions: list[int]) -> str:
        atoms = (int(self.atoms[position]) for position in positions)
        return next((self.reason[a] for a in atoms if a in self.reason), "nothing reads it")

    def _is_channel(self, position: int, reason: str) -> bool:
        """Whether atoms that stay are worth reporting: not the image, not a mere dimension."""
        numbers = set(self._numbers(position).tolist())
        real = [n for n in numbers if not self.slots[n].tensor.startswith("<input")]
        return len(real) > 1 or (bool(real) and not reason.startswith(_NO_CHANNELS))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _sorted_within(index: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Every row sorted, slot by slot."""
    offset = numbers * (int(index.max()) + 1)
    return np.sort(index + offset, axis=1) - offset

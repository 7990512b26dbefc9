"""From solved ids to channel groups: lists of equal atoms, each removable on its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from drc.graph.ids import IdSpace, Slot


@dataclass(frozen=True)
class Slice:
    """The indices one atom occupies in one dimension of one parameter or buffer.

    Attributes:
        tensor: its name in the state dict.
        dim: the dimension.
        indices: per atom of the group, the indices, `(atoms, count)`.
        read: whether a contraction sums over this dimension.
    """

    tensor: str
    dim: int
    indices: np.ndarray
    read: bool


@dataclass(frozen=True)
class Group:
    """Channels that can be removed one by one, each with all its slices.

    Attributes:
        name: the module that writes the channels, unique in the graph.
        size: number of atoms.
        slices: where the atoms live.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]


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
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    sizes: dict[tuple[str, int], int] = field(repr=False)

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


def find_groups(space: IdSpace) -> ChannelGraph:
    """Sort the classes of tied ids into groups of atoms with the same signature.

    An atom is removable when no id in it is frozen, some contraction reads it, and its group
    has more than one atom (a layer cannot lose its only channel).
    """
    resolution = space.resolve()
    frozen_members: dict[tuple, list[int]] = defaultdict(list)
    members: dict[tuple, list[int]] = defaultdict(list)
    classes = _classes(space, resolution.label)
    for label, places in classes.items():
        signature = tuple(sorted(Counter(slot for slot, _ in places).items()))
        loose = label not in resolution.frozen and label in resolution.read
        (members if loose else frozen_members)[signature].append(label)
    frozen = [
        Frozen(_name(space.slots, signature, resolution.readers), len(labels), reason)
        for signature, labels in frozen_members.items()
        if (reason := _reason(labels, resolution.frozen)) and _is_channel(space.slots, signature)
    ]
    groups, taken = [], Counter[str]()
    for signature in sorted(members):
        labels = members[signature]
        name = _name(space.slots, signature, resolution.readers)
        if len(labels) == 1:
            frozen.append(Frozen(name, 1, "a layer cannot lose its only channel"))
            continue
        taken[name] += 1
        unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
        slices = _slices(space.slots, signature, [classes[c] for c in labels], resolution.readers)
        groups.append(Group(unique, len(labels), slices))
    sizes = {(slot.tensor, slot.dim): slot.size for slot in space.slots}
    return ChannelGraph(tuple(groups), tuple(frozen), sizes)


def _classes(space: IdSpace, label: np.ndarray) -> dict[int, list[tuple[int, int]]]:
    """The (slot number, index) pairs of every class, in order of first appearance."""
    classes: dict[int, list[tuple[int, int]]] = {}
    for number, slot in enumerate(space.slots):
        for index, cls in enumerate(label[slot.start : slot.start + slot.size].tolist()):
            classes.setdefault(cls, []).append((number, index))
    return classes


def _slices(
    slots: Sequence[Slot], signature: tuple, atoms: list[list[tuple[int, int]]], read: set[int]
) -> tuple[Slice, ...]:
    slices = []
    for number, count in signature:
        indices = [sorted(i for s, i in places if s == number) for places in atoms]
        table = np.asarray(indices, dtype=np.int64).reshape(len(atoms), count)
        slices.append(Slice(slots[number].tensor, slots[number].dim, table, number in read))
    return tuple(slices)


def _name(slots: Sequence[Slot], signature: tuple, readers: set[int]) -> str:
    """The module of the first writing slot, else of the first slot."""
    numbers = [number for number, _ in signature]
    writers = [n for n in numbers if n not in readers and slots[n].tensor != "<input>"]
    tensor = slots[(writers or numbers)[0]].tensor
    return tensor.rpartition(".")[0] or tensor


def _reason(labels: list[int], frozen: dict[int, str]) -> str:
    return next((frozen[label] for label in labels if label in frozen), "nothing reads it")


def _is_channel(slots: Sequence[Slot], signature: tuple) -> bool:
    """Whether the class is worth reporting: more than the input, or a dimension of size 1."""
    return any(
        slots[number].tensor != "<input>" and slots[number].size > 1 for number, _ in signature
    )

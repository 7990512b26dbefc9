"""Equal removal: heads, halves and groups of a convolution must stay equally wide.

Where a tensor's channels fill several of its dimensions, what a cut leaves must fill a grid too:
every row (a head, say) loses the same number of channels. Which ones is free, row by row. So
channels at equal columns of the rows are put into one atom, and the rows become the blocks of the
group, among which the channels of an atom may be paired anew.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from drc.graph.ids import NO_CLASS, Resolution, distinct_rows


@dataclass(frozen=True)
class Alignment:
    """Atoms and blocks.

    Attributes:
        atom: of each id, `(ids,)`.
        block: of each id, `(ids,)`; numbers differ between blocks, not between groups' rows.
        of_class: the atom of each class.
        rows: by atom, the rows of all grids that it lies in. Only atoms that lie in the same
            rows may exchange their channels.
    """

    atom: np.ndarray
    block: np.ndarray
    of_class: np.ndarray
    rows: dict[int, tuple[int, ...]]


def align(resolution: Resolution) -> Alignment:
    """Join the classes that must go together in number."""
    classes = int(resolution.label.max(initial=0)) + 1
    frozen = np.zeros(classes, dtype=bool)
    frozen[list(resolution.frozen)] = True
    grids = [rows for grid in resolution.grids if (rows := _rows(grid, frozen)) is not None]
    atom_pairs = [np.stack((np.broadcast_to(rows[:1], rows.shape), rows)) for rows in grids]
    block_pairs = [np.stack((np.broadcast_to(rows[:, :1], rows.shape), rows)) for rows in grids]
    atoms = _components(atom_pairs, classes)
    blocks = _components(block_pairs, classes)
    members: dict[int, set[int]] = defaultdict(set)
    for number, row in enumerate(row for grid in grids for row in grid):
        for atom in np.unique(atoms[row]).tolist():
            members[atom].add(number)
    lies_in = {atom: tuple(sorted(numbers)) for atom, numbers in members.items()}
    return Alignment(atoms[resolution.label], blocks[resolution.label], atoms, lies_in)


def _rows(grid: np.ndarray, frozen: np.ndarray) -> np.ndarray | None:
    """The different rows of classes that must lose equally many; None where nothing follows.

    Rows of one class each are channels with parts, tied already. Where some rows must stay
    whole, the sizes of the others cannot be tied to theirs: the call's sizes are rewritten.
    """
    whole = grid[(grid != NO_CLASS).all(1)]
    if len(whole) < 2 or (whole[:, :1] == whole).all():
        return None
    rows = distinct_rows(whole)
    stuck = frozen[rows].any(1)
    rows = rows[~stuck]
    return rows if len(rows) > 1 else None


def _components(pairs: list[np.ndarray], size: int) -> np.ndarray:
    first, second = np.concatenate([p.reshape(2, -1) for p in pairs], 1) if pairs else ((), ())
    graph = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(size, size))
    return connected_components(graph, directed=False)[1]

"""Sizes that a forward spells out, and what a cut must make of them: the plain facts.

`view(B, N, 3, heads, 10)`, `split([16, 48])`, `reshape(B, N, C)` with a `C` read off another
tensor: such calls name widths that a cut changes. The recorder keeps every such call with its ids;
from them follows what each size must become at any widths, as plain rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from drc.graph.ids import IdMaps, solid

Sizes = tuple[int | None, ...]


@dataclass(frozen=True)
class SizeRule:
    """One size to rewrite in the forward of one module.

    Attributes:
        module: its name.
        op: the kind of call, a key of `drc.graph.sizes.ops.OPS`.
        dim: the dimension that is split or sliced; None for the other kinds.
        length: (dimension, length) of the input after the cut, where channels lie.
        number: how many calls of the kind the forward made before.
        old: the sizes as the code gives them on the traced input.
        new: what they become; None where they stay.
        site: where in the code the call stands, for kinds that lengths do not tell apart.
    """

    module: str
    op: str
    dim: int | None
    length: tuple[tuple[int, int], ...]
    number: int
    old: Sizes
    new: Sizes
    site: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SizeRule:
        return cls(
            module=str(data["module"]),
            op=str(data["op"]),
            dim=None if data["dim"] is None else int(data["dim"]),
            length=tuple((int(dim), int(size)) for dim, size in data["length"]),
            number=int(data["number"]),
            old=tuple(data["old"]),
            new=tuple(data["new"]),
            site=str(data["site"]),
        )


@dataclass(frozen=True)
class SizeCall:
    """One call that was given sizes, with the ids around it.

    Attributes:
        module: the module whose forward made the call.
        op, dim, number, site: as in a rule.
        written: the sizes as the code gives them.
        given: the sizes in effect, which an earlier cut may have rewritten.
        shape: of the input.
        source: id maps of the input.
        targets: id maps of every output.
        spare: whether it gives no rule as long as cuts hold without.
    """

    module: str
    op: str
    dim: int | None
    number: int
    site: str
    written: tuple[int, ...]
    given: tuple[int, ...]
    shape: tuple[int, ...]
    source: IdMaps
    targets: list[IdMaps]
    spare: bool

    def rule(self, new: Sizes, alive: np.ndarray) -> SizeRule:
        """The rule that gives the call the sizes `new` at a cut that leaves the ids `alive`."""
        found = [(dim, kept_length(self.source, dim, alive)) for dim in range(len(self.shape))]
        length = tuple((dim, size) for dim, size in found if size is not None)
        return SizeRule(
            self.module, self.op, self.dim, length, self.number, self.written, new, self.site
        )

    def solid(self) -> SizeCall:
        """The call with ids as they are after the run: tensors may have been written into."""
        source = [solid(ids) for ids in self.source]
        targets = [[solid(ids) for ids in maps] for maps in self.targets]
        return replace(self, source=source, targets=targets)

    @property
    def touches_channels(self) -> bool:
        maps = [*self.source, *(ids for target in self.targets for ids in target)]
        return any(ids.numel() > 1 for ids in maps)


def compose(earlier: Sequence[SizeRule], later: Sequence[SizeRule]) -> tuple[SizeRule, ...]:
    """The rules of two cuts in a row: what the later cut knows of a module holds for both."""
    known = {rule.module for rule in later}
    return (*(rule for rule in earlier if rule.module not in known), *later)


def kept_length(maps: Sequence[Tensor], dim: int | None, alive: np.ndarray) -> int | None:
    """Length of `dim` that a cut leaves; None where no id map varies along it."""
    if dim is None:
        return None
    for ids in maps:
        if ids.ndim > dim and ids.shape[dim] > 1:
            return lengths(alive[ids.numpy()])[dim]
    return None


def lengths(mask: np.ndarray) -> list[int]:
    """The shape of what is left. Rows may have lost different channels, but equally many."""
    dims = [dim for dim, size in enumerate(mask.shape) if size > 1]
    left = [1] * mask.ndim
    for dim in dims:
        left[dim] = int(mask.any(tuple(d for d in range(mask.ndim) if d != dim)).sum())
    others = math.prod(left[dim] for dim in dims[:-1])
    if others * left[dims[-1]] != mask.sum():
        left[dims[-1]] = int(mask.sum()) // max(1, others)
    return left

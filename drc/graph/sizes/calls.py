"""Sizes that a forward spells out, and what a cut must make of them.

`view(B, N, 3, heads, 10)`, `split([16, 48])`, `reshape(B, N, C)` with a `C` read off another
tensor: such calls name widths that a cut changes. The tracer records every call with its ids;
from them follows what each size must become at any widths, as plain `SizeRule`s, which
`drc.graph.sizes.recorder` applies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from drc.graph.ids import IdMaps, solid
from drc.graph.sizes.ops import OPS, Sizes, kept_length


@dataclass(frozen=True)
class SizeRule:
    """One size to rewrite in the forward of one module.

    Attributes:
        module: its name.
        op: the kind of call, a key of `OPS`.
        dim: the dimension that is split or sliced; -1 for the other kinds.
        length: (dimension, length) of the input after the cut, where channels lie.
        place: how many calls of the kind the forward made before.
        old: the sizes as the code gives them on the traced input.
        new: what they become; None where they stay.
        site: where in the code the call stands, for kinds that lengths do not tell apart.
    """

    module: str
    op: str
    dim: int
    length: tuple[tuple[int, int], ...]
    place: int
    old: Sizes
    new: Sizes
    site: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SizeRule:
        if data["op"] not in OPS:
            raise ValueError(f"it rewrites sizes of {data['op']!r}, which this drc does not know")
        length = tuple((int(dim), int(size)) for dim, size in data["length"])
        return cls(
            module=str(data["module"]),
            op=str(data["op"]),
            dim=int(data["dim"]),
            length=length,
            place=int(data["place"]),
            old=tuple(data["old"]),
            new=tuple(data["new"]),
            site=str(data.get("site", "")),
        )


@dataclass(frozen=True)
class SizeCall:
    """One call that was given sizes, with the ids around it.

    Attributes:
        module: the module whose forward made the call.
        op: the kind of call, a key of `OPS`.
        dim: the dimension that is split or sliced; -1 for the other kinds.
        place: how many calls of the kind the forward made before.
        written: the sizes as the code gives them.
        given: the sizes in effect, which an earlier cut may have rewritten.
        shape: of the input.
        source: id maps of the input.
        targets: id maps of every output.
        spare: whether it gives no rule as long as cuts hold without.
        site: as in a rule.
    """

    module: str
    op: str
    dim: int
    place: int
    written: tuple[int, ...]
    given: tuple[int, ...]
    shape: tuple[int, ...]
    source: IdMaps
    targets: list[IdMaps]
    spare: bool = False
    site: str = ""

    def rule(self, alive: np.ndarray) -> SizeRule | None:
        """The rule at a cut that leaves the ids `alive`, `(ids,)`; None if it has no channels.

        A size that the cut leaves as it was is in the rule too: the code may have read it off
        another tensor, which was cut.
        """
        new = (None,) if self.spare else OPS[self.op].needed(self, alive)
        if all(size is None for size in new):
            return None
        found = [(dim, kept_length(self.source, dim, alive)) for dim in range(len(self.shape))]
        length = tuple((dim, size) for dim, size in found if size is not None)
        return SizeRule(
            self.module, self.op, self.dim, length, self.place, self.written, new, self.site
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


def rules_at(calls: Iterable[SizeCall], alive: np.ndarray) -> tuple[SizeRule, ...]:
    """The rules of all calls at a cut that leaves the ids `alive`, each once."""
    if alive.all():
        return ()
    return tuple(dict.fromkeys(rule for call in calls if (rule := call.rule(alive)) is not None))


def compose(earlier: Sequence[SizeRule], later: Sequence[SizeRule]) -> tuple[SizeRule, ...]:
    """The rules of two cuts in a row: what the later cut knows of a module holds for both."""
    known = {rule.module for rule in later}
    return (*(rule for rule in earlier if rule.module not in known), *later)

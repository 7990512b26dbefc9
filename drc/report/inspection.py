"""What can be removed from a network, what each part holds, and what stays for which reason."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from drc.evaluation.complexity import macs_per_weight
from drc.graph.cost import CostModel
from drc.graph.groups import ChannelGraph, Frozen, Group
from drc.graph.ids import PER_ROW
from drc.graph.trace import trace
from drc.networks.traits import plain_network
from drc.report.table import MISSING, Table, console, giga, print_facts

LR_SIZE = (96, 96)

Kind = Literal["end", "single", "count", "frozen"]

_NUMBER = re.compile(r"\d+")
_Row = tuple[tuple[str, ...], tuple[str, ...]]  # texts, figures


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorSlice(_Part):
    """Where the channels of a group lie: `per_channel` indices each, along `dim` of `tensor`."""

    tensor: str
    dim: int
    per_channel: int


class GroupFacts(_Part):
    """One group of channels that can be removed.

    Attributes:
        name: the layer that writes the channels.
        channels: how many there are; in each block, where there are several.
        blocks: parts, such as heads, that must lose equally many channels; 1 if free of that.
        params: parameters that live in these channels.
        params_per_channel: parameters that go with one channel, of every block, while all others
            stay.
        macs: multiply-adds spent on these channels; None where they could not be counted.
        macs_per_channel: as `params_per_channel`.
        layers: number of layers that the channels run through.
        slices: the tensors that get smaller.
    """

    name: str
    channels: int
    blocks: int
    params: int
    params_per_channel: int
    macs: int | None
    macs_per_channel: int | None
    layers: int
    slices: list[TensorSlice]


class FrozenFacts(_Part):
    """Channels that stay.

    Attributes:
        name: the layer that writes them.
        channels: how many there are.
        kind: `end` for the channels of the images that go in and come out, `single` for a
            dimension of size one, `count` for one that counts heads or other parts that stay,
            `frozen` for channels that could have been a group.
        reason: the op or the fault that keeps them.
    """

    name: str
    channels: int
    kind: Kind
    reason: str


class Inspection(_Part):
    """What `drc inspect` prints. `str()` of it is the table for people.

    Attributes:
        model: class of the network.
        params: number of parameters.
        params_removable: those that live in channels of some group.
        macs: multiply-adds of one image of `lr_size`; None where they could not be counted.
        macs_removable: those spent on channels of some group, as far as layers account for them.
        lr_size: height and width that `macs` is for.
        groups: what can be removed.
        frozen: what stays.
        notes: what else must be known.
    """

    model: str
    params: int
    params_removable: int
    macs: int | None
    macs_removable: int | None
    lr_size: tuple[int, int]
    groups: list[GroupFacts]
    frozen: list[FrozenFacts]
    notes: list[str]

    def to_json(self) -> str:
        """The whole of it as JSON."""
        return self.model_dump_json(indent=2)

    def __str__(self) -> str:
        file = io.StringIO()
        print_inspection(self, file)
        return file.getvalue().rstrip()


def inspect(
    model: nn.Module, inputs: Any = None, *, lr_size: tuple[int, int] = LR_SIZE
) -> Inspection:
    """Find the channel groups of a network, and what removing them would free.

    Args:
        model: any SR network, in float32; it is not changed.
        inputs: what its forward takes: a tensor, a tuple, or a dict of keywords. By default the
            smallest image that it runs on.
        lr_size: height and width of the LR image that MACs are counted for.

    Raises:
        ModelError: the network does not run on the input.
    """
    model = plain_network(model, image_alone=inputs is None)
    return describe(model, trace(model, inputs), lr_size)


def describe(
    model: nn.Module, graph: ChannelGraph, lr_size: tuple[int, int] = LR_SIZE
) -> Inspection:
    """The same for a network that is traced already."""
    notes: list[str] = []
    params = _Cost(CostModel(graph, model))
    macs = _macs(model, graph, lr_size, notes)
    return Inspection(
        model=type(model).__qualname__,
        params=params.total,
        params_removable=params.removable,
        macs=macs.total if macs else None,
        macs_removable=macs.removable if macs else None,
        lr_size=lr_size,
        groups=[_group(group, i, params, macs) for i, group in enumerate(graph.groups)],
        frozen=[
            FrozenFacts(name=f.name, channels=f.size, kind=frozen_kind(f), reason=f.reason)
            for f in graph.frozen
        ],
        notes=notes,
    )


def frozen_kind(frozen: Frozen) -> Kind:
    """What never was a group, and what might have been one."""
    if frozen.reason.startswith(PER_ROW):
        return "count"
    if frozen.reason.startswith(("network input", "network output")):
        return "end"
    return "single" if frozen.size == 1 else "frozen"


class _Cost:
    """The figures of one cost model: in all, per group, and per channel of each group."""

    def __init__(self, cost: CostModel) -> None:
        dense = cost.dense
        self.total = cost(dense)
        self.removable = self.total - cost(np.zeros_like(dense))
        self.per_group = cost.savings(dense, dense).round().astype(int).tolist()
        self.per_channel = cost.savings(dense, np.ones_like(dense)).round().astype(int).tolist()


def _macs(
    model: nn.Module, graph: ChannelGraph, lr_size: tuple[int, int], notes: list[str]
) -> _Cost | None:
    try:
        with torch.random.fork_rng(devices=[]):
            per_weight = macs_per_weight(model, lr_size)
    except Exception as error:  # the counter, or a network that takes no such image
        text = str(error).strip().splitlines()
        height, width = lr_size
        notes.append(
            f"MACs could not be counted on one image of {height}x{width} "
            f"({text[0] if text else type(error).__name__})"
        )
        return None
    cost = _Cost(CostModel(graph, model, per_weight))
    elsewhere = per_weight[""] / max(1, cost.total)
    if elsewhere >= 0.005:
        notes.append(
            f"{elsewhere:.0%} of the MACs are spent outside the weights of layers and are "
            "counted to no group"
        )
    return cost


def _group(group: Group, index: int, params: _Cost, macs: _Cost | None) -> GroupFacts:
    slices = [
        TensorSlice(tensor=part.tensor, dim=part.dim, per_channel=part.indices.shape[1])
        for part in group.slices
        if not part.tensor.startswith("<input")
    ]
    return GroupFacts(
        name=group.name,
        channels=group.size,
        blocks=group.blocks,
        params=params.per_group[index],
        params_per_channel=params.per_channel[index],
        macs=macs.per_group[index] if macs else None,
        macs_per_channel=macs.per_channel[index] if macs else None,
        layers=len({part.tensor.rpartition(".")[0] for part in slices}),
        slices=slices,
    )


def print_inspection(inspection: Inspection, file: IO[str]) -> None:
    """Write the groups, what stays, the notes and a summary to `file`."""
    out = console(file)
    for table in (_groups_table(inspection), _frozen_table(inspection)):
        if table.rows:
            out.print(table.rich())
    print_facts(out, _facts(inspection))


def _facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    """The lines under the tables: what never was a group, notes, summary."""
    kinds = Counter(part.kind for part in inspection.frozen)
    if kinds["end"]:
        ends = dict.fromkeys(part.name for part in inspection.frozen if part.kind == "end")
        yield "images in and out", ", ".join(ends)
    if kinds["single"]:
        yield "dimensions of size one", f"{kinds['single']}, which no layer can lose"
    if kinds["count"]:
        yield "dimensions that count heads or parts", f"{kinds['count']}, whose number stays"
    yield from (("note", note) for note in inspection.notes)
    yield "removable", _summary(inspection)


def _summary(inspection: Inspection) -> str:
    """One line: how much of the network can be removed."""
    groups = len(inspection.groups)
    found = groups + sum(f.kind == "frozen" for f in inspection.frozen)
    text = (
        f"{groups} of {found} channel groups, with "
        f"{_share(inspection.params_removable, inspection.params)} of the "
        f"{inspection.params:,} parameters"
    )
    if inspection.macs is not None and inspection.macs_removable is not None:
        height, width = inspection.lr_size
        text += (
            f" and {_share(inspection.macs_removable, inspection.macs)} of the "
            f"{giga(inspection.macs)} MACs (LR {height}x{width})"
        )
    return text


def _groups_table(inspection: Inspection) -> Table:
    figures = ("channels", "blocks", "layers", "parameters", "share", "per channel", "MACs")
    rows: list[_Row] = []
    for group in inspection.groups:
        counts = str(group.channels), str(group.blocks), str(group.layers)
        share = _share(group.params, inspection.params)
        macs = MISSING if group.macs is None else giga(group.macs)
        params = f"{group.params:,}", share, f"{group.params_per_channel:,}"
        rows.append(((group.name,), (*counts, *params, macs)))
    return Table(
        ("group", "groups", *figures),
        [(*texts, str(count), *cells) for texts, cells, count in _merged(rows)],
        f"{inspection.model}: removable channels",
    )


def _frozen_table(inspection: Inspection) -> Table:
    frozen = [part for part in inspection.frozen if part.kind == "frozen"]
    rows = [((part.name, part.reason), (str(part.channels),)) for part in frozen]
    return Table(
        ("layer", "groups", "channels", "because"),
        [(name, str(count), *cells, reason) for (name, reason), cells, count in _merged(rows)],
        "Channels that stay",
        align="lrrl",
    )


def _merged(rows: Sequence[_Row]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], int]]:
    """Rows of equal figures whose texts differ in numbers alone as one, `*` for those numbers.

    Yields texts, figures, and how many rows they stand for, in the order of the first of each.
    """
    alike: dict[_Row, list[tuple[str, ...]]] = {}
    for texts, figures in rows:
        shape = tuple(_NUMBER.sub("*", text) for text in texts)
        alike.setdefault((shape, figures), []).append(texts)
    for (_, figures), found in alike.items():
        yield tuple(map(_pattern, zip(*found, strict=True))), figures, len(found)


def _pattern(texts: tuple[str, ...]) -> str:
    """The text they have in common; they differ in numbers only."""
    numbers = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    common = iter(n[0] if len(set(n)) == 1 else "*" for n in numbers)
    return _NUMBER.sub(lambda _: next(common), texts[0])


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else MISSING

"""What can be removed from a network, what each part holds, and what stays for which reason."""

from __future__ import annotations

from typing import Any, Literal

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

LR_SIZE = (96, 96)

Kind = Literal["end", "single", "count", "frozen"]


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
        from drc.report.inspection_table import to_text

        return to_text(self)


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
    """Tell what never was a group from what might have been one."""
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

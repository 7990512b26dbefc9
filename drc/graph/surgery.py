"""Slicing weights, buffers and module attributes, so that the small network is an ordinary one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drc.core.errors import ModelError
from drc.graph.groups import ChannelGraph, Group
from drc.graph.sizes.calls import SizeRule, compose
from drc.graph.sizes.ops import read_rule, rules_at
from drc.graph.sizes.resized import attach
from drc.networks.copying import copy_of

KeepSets = Mapping[str, Sequence[int] | Sequence[Sequence[int]]]
"""Group name -> atoms kept, ascending: one list for all blocks of the group, or one per block,
equally long. A group that is not named keeps all."""

Removed = dict[str, dict[int, set[int]]]

_ATTRIBUTE = "drc_cut"


@dataclass(frozen=True)
class Cut:
    """What was kept of a network.

    Attributes:
        kept: per tensor and dimension, indices into the dense tensor; dimensions that kept
            everything are not listed.
        sizes: what the forward must do about sizes that its code spells out.
    """

    kept: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    sizes: tuple[SizeRule, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON; dimensions become strings."""
        kept = {name: {str(d): i for d, i in dims.items()} for name, dims in self.kept.items()}
        return {"kept": kept, "sizes": [rule.to_json() for rule in self.sizes]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cut:
        kept = {n: {int(d): list(i) for d, i in dims.items()} for n, dims in data["kept"].items()}
        return cls(kept, tuple(read_rule(rule) for rule in data["sizes"]))

    def then(self, later: Cut) -> Cut:
        """The cut that has the effect of this one followed by `later`."""
        kept = {name: dict(dims) for name, dims in self.kept.items()}
        for name, dims in later.kept.items():
            for dim, indices in dims.items():
                earlier = kept.setdefault(name, {}).get(dim)
                kept[name][dim] = [earlier[i] for i in indices] if earlier else list(indices)
        return Cut(kept, compose(self.sizes, later.sizes))


def get_cut(model: nn.Module) -> Cut | None:
    """The cut that made `model` from its dense form, or None for a dense network."""
    return getattr(model, _ATTRIBUTE, None)


def cut(
    model: nn.Module, graph: ChannelGraph, keep: KeepSets, dtype: torch.dtype | None = None
) -> nn.Module:
    """Return a smaller copy of `model` that keeps only the given atoms.

    All groups are cut at once, from the indices of the network that was traced.

    Args:
        model: the network that was traced; it is not changed.
        graph: its channel groups.
        keep: what stays.
        dtype: number type of the copy; by default that of the model.

    Raises:
        ModelError: an unknown group, an index out of range, or a group left empty.
    """
    gone = removed(graph, keep)
    step = Cut(kept_indices(graph, gone), rules_at(graph.calls, graph.alive(gone)))
    small = twin_of(model)
    apply_cut(small, step)
    _take_own(small, {id(parameter) for parameter in model.parameters()}, dtype)
    earlier = get_cut(model)
    if earlier is not None:
        both = earlier.then(step)
        setattr(small, _ATTRIBUTE, both)
        attach(small, both.sizes)
    return small


def twin_of(model: nn.Module, changed: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A copy with modules and buffers of its own that shares the parameters.

    Args:
        model: the network.
        changed: by id of a parameter, the one to have in its place.
    """
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy_of(model, {**shared, **(changed or {})})


def _take_own(model: nn.Module, borrowed: set[int], dtype: torch.dtype | None) -> None:
    """Copy the tensors that `model` still shares with another network."""
    for owners in list({id(found): found for found in _owners(model).values()}.values()):
        first, leaf = owners[0]
        tensor = getattr(first, leaf)
        own = _copied(tensor, id(tensor) in borrowed, dtype)
        for module, leaf in owners:
            table = module._parameters if leaf in module._parameters else module._buffers
            table[leaf] = own  # type: ignore[assignment]


def apply_cut(model: nn.Module, step: Cut) -> None:
    """Slice the tensors of `model` in place, and set the attributes that follow from them.

    Raises:
        ModelError: a tensor is missing or too small: the cut belongs to another network.
    """
    owners = _owners(model)
    replaced: dict[int, Tensor] = {}
    for name, dims in step.kept.items():
        if name not in owners:
            raise ModelError(f"the cut names {name}, which this {type(model).__name__} lacks")
        for module, leaf in owners[name]:
            old = getattr(module, leaf)
            if id(old) not in replaced:
                replaced[id(old)] = _sliced(name, old, dims)
            new = replaced[id(old)]
            table = module._parameters if leaf in module._parameters else module._buffers
            table[leaf] = new  # type: ignore[assignment]
    for module in model.modules():
        _follow_weight(module)
    attach(model, step.sizes)
    setattr(model, _ATTRIBUTE, step)


def _sliced(name: str, tensor: Tensor, dims: Mapping[int, Sequence[int]]) -> Tensor:
    data = tensor.detach()
    for dim, indices in dims.items():
        if dim >= data.ndim or max(indices) >= data.shape[dim]:
            raise ModelError(
                f"the cut keeps index {max(indices)} of dimension {dim} of {name}, "
                f"whose shape is {tuple(tensor.shape)}"
            )
        data = data.index_select(dim, torch.tensor(indices, device=data.device))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data.contiguous(), requires_grad=tensor.requires_grad)
    return data.contiguous()


def _copied(tensor: Tensor, borrowed: bool, dtype: torch.dtype | None) -> Tensor:
    converts = dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype
    if not borrowed and not converts:
        return tensor
    data = tensor.detach().to(dtype) if converts else tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def _owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """By tensor name, every (module, attribute) that holds it; shared tensors have several."""
    by_identity: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    names: dict[str, int] = {}
    for prefix, module in model.named_modules():
        for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                by_identity[id(tensor)].append((module, leaf))
                names[f"{prefix}.{leaf}" if prefix else leaf] = id(tensor)
    return {name: by_identity[identity] for name, identity in names.items()}


def _follow_weight(module: nn.Module) -> None:
    """Let a standard layer's size attributes agree with the shape of its tensors."""
    if isinstance(module, nn.modules.conv._ConvNd):
        _follow_convolution(module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        tensor = module.weight if module.weight is not None else module.running_mean
        if tensor is not None:
            module.num_features = tensor.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm) and module.weight is not None:
        module.num_channels = module.weight.shape[0]
    elif isinstance(module, nn.TransformerEncoderLayer):
        if set(module.self_attn.out_proj.weight.shape) != {module.self_attn.embed_dim}:
            module.activation_relu_or_gelu = 0  # torch's fused layer knows no other widths
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape


def _follow_convolution(module: nn.modules.conv._ConvNd) -> None:
    first, second = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels and second == 1
    if depthwise and module.transposed:
        module.groups = module.in_channels = module.out_channels = first
    elif depthwise:
        module.groups = module.in_channels = first // (module.out_channels // module.groups)
        module.out_channels = first
    elif module.transposed:
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        module.out_channels, module.in_channels = first, second * module.groups


def kept_indices(graph: ChannelGraph, gone: Removed) -> dict[str, dict[int, list[int]]]:
    """What stays of every tensor that loses something: name -> dimension -> indices."""
    return {
        name: {
            dim: [i for i in range(graph.sizes[name, dim]) if i not in indices]
            for dim, indices in dims.items()
        }
        for name, dims in gone.items()
    }


def removed(graph: ChannelGraph, keep: KeepSets) -> Removed:
    """What goes of every tensor: name -> dimension -> indices.

    Raises:
        ModelError: as `cut`.
    """
    gone: Removed = defaultdict(lambda: defaultdict(set))
    by_name = {group.name: group for group in graph.groups}
    for name, atoms in keep.items():
        group = by_name.get(name)
        if group is None:
            raise ModelError(f"the network has no removable channel group called {name!r}")
        rows = _lost_atoms(group, atoms)
        for part in group.slices if rows[0] else ():
            for column, block in enumerate(part.block.tolist()):
                gone[part.tensor][part.dim].update(part.indices[rows[block], column].tolist())
    return gone


def _lost_atoms(group: Group, atoms: Sequence[int] | Sequence[Sequence[int]]) -> list[list[int]]:
    """The atoms that go, block by block."""
    nested = len(atoms) > 0 and not isinstance(atoms[0], (int, np.integer))
    chosen: list[set[int]] = [set(row) for row in (atoms if nested else [atoms] * group.blocks)]  # type: ignore[arg-type]
    if len(chosen) != group.blocks or len({len(row) for row in chosen}) != 1:
        raise ModelError(f"group {group.name} needs one keep set for each of {group.blocks} blocks")
    if any(not row or min(row) < 0 or max(row) >= group.size for row in chosen):
        raise ModelError(f"group {group.name} has channels 0..{group.size - 1}; keep at least one")
    return [[atom for atom in range(group.size) if atom not in row] for row in chosen]

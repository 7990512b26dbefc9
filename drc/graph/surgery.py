"""Slicing weights, buffers and module attributes, so that the small network is an ordinary one."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from drc.errors import ModelError
from drc.graph.groups import ChannelGraph

KeepSets = Mapping[str, Sequence[int]]
"""Group name -> atoms kept, ascending; a group that is not named keeps all."""

_ATTRIBUTE = "drc_cut"


@dataclass(frozen=True)
class Cut:
    """What was kept of a network: per tensor and dimension, indices into the dense tensor.

    Dimensions that kept everything are not listed.
    """

    kept: dict[str, dict[int, list[int]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON; dimensions become strings."""
        return {name: {str(d): i for d, i in dims.items()} for name, dims in self.kept.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, Sequence[int]]]) -> Cut:
        return cls({n: {int(d): list(i) for d, i in dims.items()} for n, dims in data.items()})

    def then(self, later: Cut) -> Cut:
        """The cut that has the effect of this one followed by `later`."""
        kept = {name: dict(dims) for name, dims in self.kept.items()}
        for name, dims in later.kept.items():
            for dim, indices in dims.items():
                earlier = kept.setdefault(name, {}).get(dim)
                kept[name][dim] = [earlier[i] for i in indices] if earlier else list(indices)
        return Cut(kept)


def get_cut(model: nn.Module) -> Cut | None:
    """The cut that made `model` from its dense form, or None for a dense network."""
    return getattr(model, _ATTRIBUTE, None)


def cut(model: nn.Module, graph: ChannelGraph, keep: KeepSets) -> nn.Module:
    """Return a smaller copy of `model` that keeps only the given atoms.

    All groups are cut at once, from the indices of the network that was traced.

    Raises:
        ModelError: an unknown group, an index out of range, or a group left empty.
    """
    step = _cut_of(graph, keep)
    small = copy.deepcopy(model)
    earlier = get_cut(model)
    apply_cut(small, step)
    setattr(small, _ATTRIBUTE, earlier.then(step) if earlier else step)
    return small


def mask(model: nn.Module, graph: ChannelGraph, keep: KeepSets) -> nn.Module:
    """Return a copy of full size in which every parameter slice of a removed atom is zero.

    It computes what `cut` computes; it serves to check that, never to be trained.
    """
    masked = copy.deepcopy(model)
    parameters = dict(masked.named_parameters())
    with torch.no_grad():
        for name, dims in _removed(graph, keep).items():
            for dim, indices in dims.items():
                if name in parameters:
                    weight = parameters[name]
                    gone = torch.tensor(sorted(indices), device=weight.device)
                    weight.index_fill_(dim, gone, 0.0)
    return masked


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


def _cut_of(graph: ChannelGraph, keep: KeepSets) -> Cut:
    kept: dict[str, dict[int, list[int]]] = {}
    for name, dims in _removed(graph, keep).items():
        for dim, gone in dims.items():
            size = graph.sizes[name, dim]
            kept.setdefault(name, {})[dim] = [i for i in range(size) if i not in gone]
    return Cut(kept)


def _removed(graph: ChannelGraph, keep: KeepSets) -> dict[str, dict[int, set[int]]]:
    removed: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    by_name = {group.name: group for group in graph.groups}
    for name, atoms in keep.items():
        group = by_name.get(name)
        if group is None:
            raise ModelError(f"the network has no removable channel group called {name!r}")
        chosen = set(atoms)
        if not chosen or min(chosen) < 0 or max(chosen) >= group.size:
            raise ModelError(f"group {name} has channels 0..{group.size - 1}; keep at least one")
        gone = [atom for atom in range(group.size) if atom not in chosen]
        for part in group.slices if gone else ():
            removed[part.tensor][part.dim].update(part.indices[gone].ravel().tolist())
    return removed

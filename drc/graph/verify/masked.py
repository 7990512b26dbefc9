"""The dense network with some channels masked: what a cut network must be equal to.

Every weight slice of a removed channel is zero. That is all for sums over channels. Statistics
over channels (means, softmax, layer norms) are taken over the channels that are left, as the
smaller network takes them; the ids beside every tensor tell which those are. Nothing is copied:
weights are masked, and widened to the number type of the run, at the moment an op uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from drc.graph.groups import ChannelGraph
from drc.graph.ids import IdSpace
from drc.graph.inputs import Inputs, call, tensors_of
from drc.graph.rules.common import varies
from drc.graph.rules.reductions import reduced_dims
from drc.graph.surgery import KeepSets, Removed, removed
from drc.graph.tracer import Tracer, feed, plain_run, running


def run_masked(
    model: nn.Module,
    graph: ChannelGraph,
    keep: KeepSets,
    inputs: Inputs,
    dtype: torch.dtype | None = None,
) -> Any:
    """The outputs of `model` when only the given atoms are there.

    Args:
        model: the network that was traced; it is not changed.
        graph: its channel groups.
        keep: what stays.
        inputs: of any size that the network takes, in the number type of the run.
        dtype: what weights are widened to; by default they are used as they are.
    """
    return run_exactly(model, graph, keep, inputs, dtype)[0]


def run_exactly(
    model: nn.Module,
    graph: ChannelGraph,
    keep: KeepSets,
    inputs: Inputs,
    dtype: torch.dtype | None = None,
) -> tuple[Any, bool]:
    """As `run_masked`, and whether no op narrowed what it was given in `dtype`."""
    gone = removed(graph, keep)
    runner = _Masked(model, graph, gone, dtype)
    with plain_run(), running(runner):
        feed(runner, inputs)
        return call(model, inputs), runner.exact


class _Masked(Tracer):
    """Traces as ever, and computes with what is left."""

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        gone: Removed,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(model, IdSpace(graph.slots))
        self._follows = graph.has_statistics
        self._alive = torch.from_numpy(graph.alive(gone))
        self._dtype = dtype
        self.exact = True
        self._assigned: dict[int, Tensor] = {}
        self._weights: dict[int, dict[int, list[int]]] = {}
        for name, parameter in model.named_parameters():
            lost = gone.get(name, {})
            self._weights[id(parameter)] = {dim: sorted(rows) for dim, rows in lost.items()}
        self._buffers = {id(buffer) for buffer in model.buffers()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if self._follows:
            return super().__torch_dispatch__(func, types, args, kwargs)
        return self.compute(func, args, kwargs or {})

    def compute(self, func: Any, args: tuple, kwargs: dict) -> Any:
        values = tuple(self._values(arg) for arg in args)
        named = {key: self._value(value) for key, value in kwargs.items()}
        statistic = _STATISTICS.get(func._schema.name)
        outputs = statistic(self, func, args, values, named) if statistic is not None else None
        if outputs is None:
            outputs = func(*values, **named)
        self.exact &= not (self._narrow(outputs) and self._wide(values))
        return outputs

    def _values(self, arg: Any) -> Any:
        """As `_value`, also for a list of tensors."""
        return [self._value(leaf) for leaf in arg] if isinstance(arg, list) else self._value(arg)

    def _narrow(self, outputs: Any) -> bool:
        """Whether some are of fewer digits than the run is to have."""
        return any(t.is_floating_point() and t.dtype != self._dtype for t in tensors_of(outputs))

    def _wide(self, values: Any) -> bool:
        return any(t.dtype == self._dtype for t in tensors_of(values))

    def _value(self, leaf: Any) -> Any:
        """A weight as the masked network has it; anything else as it is."""
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) in self._assigned:
            return self._assigned[id(leaf)]
        lost = self._weights.get(id(leaf))
        if lost is None:
            widens = id(leaf) in self._buffers and self._dtype and leaf.is_floating_point()
            return leaf.to(self._dtype) if widens else leaf
        wider = self._dtype if leaf.is_floating_point() else None
        value = leaf.detach().to(wider or leaf.dtype, copy=bool(lost))
        for dim, rows in lost.items():
            value.index_fill_(dim, torch.tensor(rows), 0.0)
        return value

    def assign(self, target: Tensor, value: Tensor) -> None:
        """Keep the value beside the network, which stays as it is."""
        self._assigned[id(target)] = value

    def data_of(self, source: Tensor) -> Tensor:
        data = self._held(source)
        return super().data_of(source) if data is source else data

    def arguments(self, func: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Functions that compare number types before they come to any op get masked weights."""
        return tree_map(self._held, (args, kwargs)) if func in _OF_ONE_TYPE else (args, kwargs)

    def _held(self, leaf: Any) -> Any:
        """What stands for a weight, as a tensor of its own; anything else as it is."""
        value = self._value(leaf)
        if value is not leaf:
            self.set_maps(value, self.maps_of(leaf))
        return value

    def left(self, tensor: Tensor, dims: list[int]) -> Tensor | None:
        """Where channels are left, as broadcasts to `tensor`; None if all are along `dims`."""
        mask = None
        for ids in self.maps_of(tensor):
            if any(varies(ids, dim) for dim in dims):
                here = self._alive[ids]
                mask = here if mask is None else mask & here
        return None if mask is None or bool(mask.all()) else mask


_OF_ONE_TYPE = {
    torch.conv1d, torch.conv2d, torch.conv3d,
    torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
    torch.prelu,
}  # fmt: skip

Statistic = Callable[[_Masked, Any, tuple, tuple, dict], Any]


def _positions(left: Tensor, dim: int) -> Tensor:
    """Positions of what is left along `dim`; every row has equally many."""
    count = int(left.sum(dim).amax())
    return (~left).long().argsort(dim=dim, stable=True).narrow(dim, 0, count)


def _fewer(tensor: Tensor, positions: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What is at these positions, and the positions in its shape."""
    shape = list(tensor.shape)
    shape[dim] = positions.shape[dim]
    positions = positions.expand(shape)
    return tensor.gather(dim, positions), positions


def _reduce(run: _Masked, func: Any, args: tuple, values: tuple, kwargs: dict) -> Any:
    """Sums, means, norms and extremes of what is left."""
    if len(args) > 1 and isinstance(args[1], Tensor):
        return None
    dims = reduced_dims(func, args, kwargs)
    left = run.left(args[0], dims)
    if left is None:
        return None
    small = values[0]
    for dim in dims:
        if bool(left.all()):
            break
        if not _changes(left, dim):
            continue
        positions = _positions(left, dim)
        small, _ = _fewer(small, positions, dim)
        left = left.gather(dim, positions)
    return func(small, *values[1:], **kwargs)


def _softmax(run: _Masked, func: Any, args: tuple, values: tuple, kwargs: dict) -> Any:
    dim = args[1]
    left = run.left(args[0], [dim])
    if left is None or not _changes(left, dim):
        return None
    small, positions = _fewer(values[0], _positions(left, dim), dim)
    return torch.zeros_like(values[0]).scatter(dim, positions, func(small, *values[1:], **kwargs))


def _layer_norm(run: _Masked, func: Any, args: tuple, values: tuple, kwargs: dict) -> Any:
    left = run.left(args[0], [args[0].ndim - 1])
    if left is None or len(args[1]) > 1:
        return None
    small, positions = _fewer(values[0], _positions(left, -1), -1)
    outputs = func(small, [small.shape[-1]], None, None, *values[4:], **kwargs)
    normal = torch.zeros_like(values[0]).scatter(-1, positions, outputs[0])
    scale, shift = values[2], values[3]
    normal = normal if scale is None else normal * scale
    return (normal if shift is None else normal + shift, *outputs[1:])


def _group_norm(run: _Masked, func: Any, args: tuple, values: tuple, kwargs: dict) -> Any:
    left = run.left(args[0], [1])
    if left is None:
        return None
    image, scale, shift, batch, channels, _, groups, epsilon = values
    grouped = image.reshape(batch, groups, channels // groups, -1)
    mask = left.reshape(len(left), groups, channels // groups, -1)
    small, positions = _fewer(grouped, _positions(mask, 2), 2)
    flat = small.reshape(batch, groups, -1)
    mean = flat.mean(-1, keepdim=True)
    spread = (flat.var(-1, keepdim=True, unbiased=False) + epsilon).rsqrt()
    normal = ((flat - mean) * spread).reshape(small.shape)
    full = torch.zeros_like(grouped).scatter(2, positions, normal).reshape(image.shape)
    shape = [1, channels] + [1] * (image.ndim - 2)
    full = full if scale is None else full * scale.view(shape)
    full = full if shift is None else full + shift.view(shape)
    return full, mean[..., 0], spread[..., 0]


def _weight_norm(run: _Masked, func: Any, args: tuple, values: tuple, kwargs: dict) -> Any:
    """g v / |v|, where the rows that are gone would be 0 / 0."""
    return tree_map(torch.nan_to_num, func(*values, **kwargs))


def _changes(left: Tensor, dim: int) -> bool:
    return bool((left != left.narrow(dim, 0, 1)).any())


_STATISTICS: dict[str, Statistic] = {
    **dict.fromkeys(
        (
            "aten::mean", "aten::sum", "aten::amax", "aten::amin", "aten::var", "aten::std",
            "aten::var_mean", "aten::std_mean", "aten::linalg_vector_norm", "aten::norm",
            "aten::max", "aten::min", "aten::logsumexp",
        ),
        _reduce,
    ),
    "aten::_softmax": _softmax,
    "aten::_log_softmax": _softmax,
    "aten::native_layer_norm": _layer_norm,
    "aten::native_group_norm": _group_norm,
    "aten::_weight_norm_interface": _weight_norm,
}  # fmt: skip

"""Least-squares refit: the layers of a cut network learn again what they gave in the dense one.

Each linear map of the cut network is solved for the weights with which, on calibration data, its
output is nearest to the kept channels of the dense network's (He et al., ICCV 2017, for one
layer). Where the output is added to a residual stream, it is the sum that is to be near, so that
a block also mends what those before it left wrong.

The dense network runs once and leaves its outputs at some places; then the cut network runs once,
and every layer is solved at the moment it is called, on what the layers before it, all refitted by
then, hand to it. So time and memory grow linearly with the number of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from drc.core.runtime import Progress, eval_mode, forward_hooks
from drc.graph.readers import LinearMap, columns_at, linear_maps, matrix_of, positions, rows_at

RIDGE = 1e-3
"""Pull towards the weights that are there, relative to the mean square of the columns."""

_TINY = 1e-30

_FEWEST = 4
"""Places needed per column: with fewer, a layer would be fitted to chance."""

_ATTRIBUTE = "drc_output_of"

_ADD = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__}
_SCALE = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.mul_, Tensor.__imul__}
_PASS = {F.dropout, torch.dropout, Tensor.contiguous}

Kept = Mapping[str, Mapping[int, Sequence[int]]]


@dataclass
class _Target:
    """What a layer of the dense network gave, or its sum with a stream, at some places.

    Attributes:
        where: the places.
        rows: of its output, `(places, outputs)`.
        stream: what was added to it there; None where nothing was.
        calls: how often the layer was called.
    """

    where: Tensor
    rows: Tensor
    stream: Tensor | None = None
    calls: int = 1


def refit(
    dense: nn.Module,
    pruned: nn.Module,
    lr: Tensor,
    kept: Kept,
    *,
    rows: int = 8192,
    ridge: float = RIDGE,
    sums: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[str]:
    """Refit the layers of `pruned` whose inputs the cut has changed, in place.

    Layers that are called more than once, or at too few places for their inputs, stay; so do those
    that are not trained (`requires_grad` is False) where others are.

    Args:
        dense: the network before the cut.
        pruned: what the cut made of it, on the same device.
        lr: calibration images, `(N, C, h, w)` in the network's range.
        kept: what the cut kept of the tensors of `dense`, by name and dimension.
        rows: places of its output that a layer is fitted to; more for layers that read much.
        ridge: see `RIDGE`.
        sums: fit sums with residual streams where there are some, not outputs alone.
        seed: of the choice of places.
        progress: called at every layer.

    Returns:
        The names of the layers that were refitted, in the order of the forward.
    """
    targets = _targets(dense, lr, rows, sums, seed)
    run = _Refit(pruned, kept, targets, ridge, progress)
    with ExitStack() as stack:
        trained = any(parameter.requires_grad for parameter in pruned.parameters())
        for name, layer in linear_maps(pruned).items():
            if name in targets and (layer.weight.requires_grad or not trained):
                run.watch(stack, name, layer)
        stack.enter_context(_Sums(run.added))
        stack.enter_context(torch.no_grad())
        stack.enter_context(eval_mode(pruned))
        pruned(lr)
    return run.done


def _targets(dense: nn.Module, lr: Tensor, rows: int, sums: bool, seed: int) -> dict[str, _Target]:
    """The dense outputs of every layer that is called once."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, _Target] = {}
    layers = linear_maps(dense)

    def added(output: Tensor, at: _Mark, stream: Tensor) -> None:
        found[at.layer].stream = rows_at(stream, layers[at.layer], found[at.layer].where)

    def keep(name: str, _: tuple[Tensor, ...], output: Tensor) -> None:
        if name in found:
            found[name].calls += 1
            return
        fewest = _FEWEST * (layers[name].weight[0].numel() + 1)
        where = positions(output, layers[name], max(rows, fewest), generator)
        found[name] = _Target(where, rows_at(output, layers[name], where))
        _mark(output, _Mark(name))

    watching = _Sums(added) if sums else nullcontext()
    with forward_hooks(layers, keep), watching, torch.no_grad(), eval_mode(dense):
        dense(lr)
    return {name: target for name, target in found.items() if target.calls == 1}


class _Refit:
    """The pass through the cut network in which its layers are solved."""

    def __init__(
        self,
        pruned: nn.Module,
        kept: Kept,
        targets: dict[str, _Target],
        ridge: float,
        progress: Progress | None,
    ) -> None:
        self.kept = kept
        self.layers = linear_maps(pruned)
        self.targets, self.ridge, self.progress = targets, ridge, progress
        self.done: list[str] = []
        self._inputs: dict[str, Tensor] = {}
        self._seen = 0

    def watch(self, stack: ExitStack, name: str, layer: LinearMap) -> None:
        """Solve the layer when it is called, or once what is added to it is known."""

        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._seen += 1
            if self.progress is not None:
                self.progress("refit", self._seen, len(self.targets), {})
            if self.targets[name].stream is None:
                self._solve(name, inputs[0], None)
            else:
                self._inputs[name] = inputs[0]

        def after(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in self._inputs:
                _mark(output, _Mark(name))

        stack.callback(layer.register_forward_pre_hook(before).remove)
        stack.callback(layer.register_forward_hook(after).remove)

    def added(self, output: Tensor, at: _Mark, stream: Tensor) -> None:
        """Solve the layer whose output is about to be added to a stream, and renew the output."""
        value = self._inputs.pop(at.layer, None)
        if value is None:  # the layer stays as it is
            return
        layer = self.layers[at.layer]
        if self._solve(at.layer, value, rows_at(stream, layer, self.targets[at.layer].where)):
            output.copy_(layer.forward(value) * at.factor)  # its hooks have been called already

    def _solve(self, name: str, value: Tensor, stream: Tensor | None) -> bool:
        layer, target = self.layers[name], self.targets[name]
        wanted = target.rows
        outputs = self.kept.get(f"{name}.weight", {}).get(0)
        if stream is not None and target.stream is not None:
            wanted = wanted + target.stream
        wanted = wanted if outputs is None else wanted[:, outputs]
        if stream is not None:
            wanted = wanted - stream
        solved = _solve(layer, value, target.where, wanted, self.ridge)
        if solved:
            self.done.append(name)
        return solved


def _solve(layer: LinearMap, value: Tensor, where: Tensor, wanted: Tensor, ridge: float) -> bool:
    """Set the weights to the least-squares ones; returns whether there was anything to do."""
    columns = columns_at(layer, value, where).flatten(1).double()
    matrix = matrix_of(layer).flatten(1).double()
    if layer.bias is not None:
        columns = torch.cat((columns, columns.new_ones(len(columns), 1)), 1)
        matrix = torch.cat((matrix, layer.bias.detach().double()[:, None]), 1)
    missing = wanted.double() - columns @ matrix.T
    unchanged = missing.abs().max() <= 1e-6 * wanted.abs().max()
    if unchanged or len(columns) < _FEWEST * columns.shape[1]:
        return False
    gram = columns.T @ columns
    inputs = gram.diagonal()[: layer.weight[0].numel()]
    inputs += ridge * inputs.mean().clamp_min(_TINY)  # the bias is free
    change = torch.linalg.solve(gram, columns.T @ missing).T
    if not change.isfinite().all():
        return False
    if layer.bias is not None:
        layer.bias.data += change[:, -1].to(layer.bias.dtype)
        change = change[:, :-1]
    layer.weight.data += change.reshape(layer.weight.shape).to(layer.weight.dtype)
    return True


@dataclass(frozen=True)
class _Mark:
    """What made a tensor.

    Attributes:
        layer: the layer whose output it is.
        factor: the number it was multiplied by since.
    """

    layer: str
    factor: float = 1.0


def _mark(output: Tensor, made_by: _Mark) -> None:
    """Mark a tensor as it is now; a later change in place ends the mark."""
    setattr(output, _ATTRIBUTE, (made_by, output._version))


def _mark_of(value: Any) -> _Mark | None:
    made_by, version = getattr(value, _ATTRIBUTE, (None, 0))
    return made_by if made_by is not None and value._version == version else None


class _Sums(TorchFunctionMode):
    """Sees the output of a layer being added to another tensor, as at the end of a residual block.

    Calls `added` before the marked output of a layer is added to a tensor of its shape.

    `added(output, mark, stream)` may change the output in place. `stream` is what makes the sum,
    up to a factor, when it is added to what the layer gave. An output counts only on its way from
    the layer to the first sum, through nothing but products with numbers; once anything else has
    read it, or changed it in place, it does not.
    """

    def __init__(self, added: Callable[[Tensor, _Mark, Tensor], None]) -> None:
        super().__init__()
        self.added = added

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ADD and len(args) == 2 and set(kwargs) <= {"alpha"}:
            self._sum(*args, float(kwargs.get("alpha", 1)))
        carried = _carried(func, args)
        result = func(*args, **kwargs)
        if isinstance(result, (Tensor, tuple, list)):  # not so for questions such as its shape
            _forget((args, kwargs))
            if carried is not None and isinstance(result, Tensor):
                _mark(result, carried)
        return result

    def _sum(self, first: Any, second: Any, alpha: float) -> None:
        """Report `first + alpha * second` where one of them is fresh from its layer."""
        if not isinstance(first, Tensor) or not isinstance(second, Tensor):
            return
        if first.shape != second.shape or not alpha:
            return
        for output, other, scale in ((first, second, 1 / alpha), (second, first, alpha)):
            found = _mark_of(output)
            if found is not None:
                delattr(output, _ATTRIBUTE)
                self.added(output, found, other / (scale * found.factor))
                return


def _forget(arguments: Any) -> None:
    for value in tree_leaves(arguments):
        if isinstance(value, Tensor) and hasattr(value, _ATTRIBUTE):
            delattr(value, _ATTRIBUTE)


def _carried(func: Any, args: tuple) -> _Mark | None:
    """The mark that a result takes over from the first tensor among the arguments."""
    if func in _PASS:
        return _mark_of(args[0])
    if func not in _SCALE or len(args) != 2:
        return None
    tensor, number = args if isinstance(args[0], Tensor) else args[::-1]
    found = _mark_of(tensor)
    if found is None or isinstance(number, Tensor) or not number:
        return None
    return _Mark(found.layer, found.factor * float(number))

"""Run a network once on channel ids: which weight slices belong together, which must stay.

Beside every tensor the tracer carries id maps: they say to which channel each element belongs. An
op is then not a node to be understood but a change of ids, given by the rules in
`drc.graph.rules`. An op without a rule freezes what flows through it, so the result may be less
prunable than it could be, never wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from drc.graph.ids import IdMaps, IdSpace, compact, varying_dims
from drc.graph.inputs import Inputs, tensors_of

Rule = Callable[["Tracer", Any, tuple, dict, Any], None]

RULES: dict[str, Rule] = {}
"""Rule by op name such as `aten::convolution`; `rule` adds to it."""

_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the named ops: `rule(tracer, func, args, kwargs, outputs)`."""

    def add(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise ValueError(f"{name} already has a rule")
            RULES[name] = function
        return function

    return add


class Tracer(TorchDispatchMode):
    """Follows ids through every op of a forward pass.

    Args:
        model: the network, in eval mode; its parameters and buffers receive ids.
        space: where ids come from and what is learnt about them goes.
    """

    def __init__(self, model: nn.Module, space: IdSpace) -> None:
        super().__init__()
        self.space = space
        self._maps = WeakTensorKeyDictionary()
        self._owned: dict[int, Tensor] = {}
        self._modules: list[str] = [""]
        self._runs: Counter[str] = Counter()
        self._model = model
        self._register_tensors()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        outputs = self.compute(func, args, kwargs)
        handler = RULES.get(func._schema.name)
        if handler is None and torch.Tag.pointwise in func.tags:
            handler = RULES["pointwise"]
        if handler is None:
            handler = RULES["unknown"]
        handler(self, func, args, kwargs, outputs)
        return outputs

    def compute(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Run one op on values."""
        return func(*args, **kwargs)

    @property
    def module(self) -> str:
        """Name of the running module, empty for the network itself."""
        return self._modules[-1]

    def maps_of(self, value: Any) -> IdMaps:
        """The id maps of a tensor; none for anything else."""
        return self._maps.get(value, []) if isinstance(value, Tensor) else []

    def wide_maps(self, value: Tensor) -> IdMaps:
        """The id maps of a tensor in its full shape."""
        return [ids.expand(value.shape) for ids in self.maps_of(value)]

    def set_maps(self, value: Any, maps: IdMaps) -> None:
        """Say whose channels the elements of `value` are; maps have its rank."""
        if isinstance(value, Tensor):
            kept = [ids if self.owns(ids) else compact(ids) for ids in maps]
            self._maps[value] = [ids for ids in kept if ids.numel() != 1 or ids.any()]

    def own(self, ids: Tensor) -> Tensor:
        """Mark ids that belong to one tensor alone, so that in-place ops may write into them."""
        self._owned[ids.untyped_storage().data_ptr()] = ids
        return ids

    def owns(self, ids: Tensor) -> bool:
        return ids.untyped_storage().data_ptr() in self._owned

    def freeze(self, maps: IdMaps, why: str) -> None:
        """Freeze every id in `maps`; the reason names the running module."""
        for ids in maps:
            self.space.freeze(ids, f"{why} in {self.module}" if self.module else why)

    def assign(self, target: Tensor, value: Tensor) -> None:
        """`target.data = value`, as merged layers write a weight computed from others."""
        target.data = value
        for mine in self.maps_of(target):
            for theirs in self.maps_of(value):
                if varying_dims(mine) == varying_dims(theirs):
                    self.space.tie(mine, theirs)

    def data_of(self, source: Tensor) -> Tensor:
        """`source.data`."""
        data = source.data
        self.set_maps(data, self.maps_of(source))
        return data

    def arguments(self, func: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """What a call of the forward is to be made with."""
        return args, kwargs

    @contextmanager
    def following_modules(self) -> Iterator[None]:
        """Keep the name of the running module."""
        handles = []
        for name, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def module_run(self) -> tuple[str, int]:
        """The running module, and which of its runs this is."""
        return self.module, self._runs[self.module]

    def _enter(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: Any) -> None:
            self._modules.append(name)
            self._runs[name] += 1

        return enter

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._modules.pop()

    def _register_tensors(self) -> None:
        # Weights of convolutions, or what they are computed from: kernel sizes are no channels.
        kernels = {
            id(parameter)
            for module in self._model.modules()
            if isinstance(module, _CONVOLUTIONS)
            for parameter in module.parameters()
            if parameter.ndim == len(module.kernel_size) + 2
        }
        named = [*self._model.named_parameters(), *self._model.named_buffers()]
        some_trainable = any(p.requires_grad for p in self._model.parameters())
        for name, tensor in named:
            if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.ndim == 0:
                continue
            dims = 2 if id(tensor) in kernels else tensor.ndim
            maps = []
            for dim in range(dims):
                if tensor.shape[dim] > 1:
                    ids = self.space.allocate(name, dim, tensor.shape[dim])
                    shape = [1] * tensor.ndim
                    shape[dim] = -1
                    maps.append(ids.view(shape))
            self._maps[tensor] = maps
            if some_trainable and isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
                self.freeze(maps, f"{name} is fixed (requires_grad is False)")


class Calls(TorchFunctionMode):
    """Tells a tracer of what happens before any op: calls, and `weight.data` read and written."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            return self._tracer.assign(*args)
        if func == Tensor.data.__get__:  # type: ignore[attr-defined]
            return self._tracer.data_of(args[0])
        args, kwargs = self._tracer.arguments(func, args, kwargs or {})
        return func(*args, **kwargs)


def feed(tracer: Tracer, inputs: Inputs) -> None:
    """Give the channels of the inputs ids, and freeze them."""
    for number, tensor in enumerate(tensors_of(inputs)):
        if tensor.ndim < 2 or not tensor.is_floating_point() or tensor.shape[1] == 1:
            continue
        ids = tracer.space.allocate(f"<input{number or ''}>", 1, tensor.shape[1])
        tracer.set_maps(tensor, [ids.view([1, -1] + [1] * (tensor.ndim - 2))])
        tracer.freeze([ids], "network input")


@contextmanager
def running(tracer: Tracer) -> Iterator[None]:
    """Trace what is run inside."""
    with tracer, Calls(tracer):
        yield


@contextmanager
def plain_run() -> Iterator[None]:
    """Without gradients, and op by op: torch's fused attention hides its channels."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)

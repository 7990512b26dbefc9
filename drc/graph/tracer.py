"""Run a network once on channel ids: which weight slices belong together, which must stay.

Beside every tensor the tracer carries integer tensors of the same shape, its *id layers*: they
say to which channel each element belongs. An op is then not a node to be understood but a
change of ids, given by the rules in this package. An op without a rule freezes what flows
through it, so the result may be less prunable than it could be, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from drc.errors import ModelError
from drc.graph.ids import IdSpace

Layers = list[Tensor]
Rule = Callable[["Tracer", Any, tuple, dict, Any], None]

RULES: dict[str, Rule] = {}
"""Rule by op name such as `aten::convolution`; `rule` adds to it."""

_SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128)
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
        self._layers = WeakTensorKeyDictionary()
        self._owned: dict[int, Tensor] = {}
        self._modules: list[str] = [""]
        self._model = model
        self._register_tensors()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        name = func._schema.name
        handler = RULES.get(name)
        if handler is None and torch.Tag.pointwise in func.tags:
            handler = RULES["pointwise"]
        if handler is None:
            handler = RULES["unknown"]
        handler(self, func, args, kwargs, outputs)
        return outputs

    def layers(self, value: Any) -> Layers:
        """The id layers of a tensor; none for anything else."""
        return self._layers.get(value, []) if isinstance(value, Tensor) else []

    def set_layers(self, value: Any, layers: Layers) -> None:
        if isinstance(value, Tensor):
            self._layers[value] = [ids.expand(value.shape) for ids in layers]

    def own(self, ids: Tensor) -> Tensor:
        """Mark ids that belong to one tensor alone, so that in-place ops may write into them."""
        self._owned[ids.untyped_storage().data_ptr()] = ids
        return ids

    def owns(self, ids: Tensor) -> bool:
        return ids.untyped_storage().data_ptr() in self._owned

    def freeze(self, layers: Layers, why: str) -> None:
        """Freeze every id in `layers`; the reason names the running module."""
        where = self._modules[-1]
        for ids in layers:
            self.space.freeze(ids, f"{why} in {where}" if where else why)

    @contextmanager
    def following_modules(self) -> Iterator[None]:
        """Keep the name of the running module, for reasons."""
        handles = []
        for name, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda module, args: self._modules.append(name)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._modules.pop()

    def _register_tensors(self) -> None:
        convolution_weights = {
            id(module.weight)
            for module in self._model.modules()
            if isinstance(module, _CONVOLUTIONS)
        }
        named = [*self._model.named_parameters(), *self._model.named_buffers()]
        some_trainable = any(p.requires_grad for p in self._model.parameters())
        for name, tensor in named:
            if not tensor.is_floating_point() or tensor.ndim == 0:
                continue
            # The kernel dimensions of a convolution are no channels.
            dims = 2 if id(tensor) in convolution_weights else tensor.ndim
            layers = []
            for dim in range(dims):
                ids = self.space.allocate(name, dim, tensor.shape[dim])
                shape = [1] * tensor.ndim
                shape[dim] = -1
                layers.append(ids.view(shape))
            self.set_layers(tensor, layers)
            if some_trainable and isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
                self.freeze(layers, f"{name} is fixed (requires_grad is False)")


def example_input(model: nn.Module, channels: int = 3) -> Tensor:
    """The smallest square image batch `(1, channels, s, s)` on which the network runs.

    Raises:
        ModelError: it runs on none of the sizes tried; the message carries the last error.
    """
    tensor = next(iter(model.parameters()), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    error: Exception | None = None
    for size in _SIZES:
        image = torch.rand(1, channels, size, size, generator=generator).to(tensor)
        try:
            with torch.no_grad():
                model(image)
            return image
        except Exception as caught:
            error = caught
    raise ModelError(
        f"the network runs on no {channels}-channel image of {_SIZES[0]} to {_SIZES[-1]} pixels "
        f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
        "drc needs a module that maps an RGB image batch to an SR image batch"
    ) from error


def run_traced(model: nn.Module, inputs: Tensor) -> IdSpace:
    """Run `model` once on `inputs` and return what was learnt about its channels.

    Network inputs and outputs are frozen. The model is neither changed nor copied.

    Raises:
        ModelError: the forward pass fails.
    """
    import drc.graph.rules  # noqa: F401  (fills RULES)

    space = IdSpace()
    tracer = Tracer(model, space)
    ids = space.allocate("<input>", 1, inputs.shape[1])
    shape = [1, -1] + [1] * (inputs.ndim - 2)
    tracer.set_layers(inputs, [ids.view(shape)])
    tracer.freeze([ids], "network input")
    with torch.no_grad(), tracer.following_modules(), tracer:
        try:
            outputs = model(inputs)
        except Exception as error:
            raise ModelError(
                f"the network fails while being traced ({type(error).__name__}: {error})"
            ) from error
    for output in tree_leaves(outputs):
        tracer.freeze(tracer.layers(output), "network output")
    return space

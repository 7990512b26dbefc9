"""Rewriting the sizes of a cut network while it runs.

The modules whose code spells out sizes run their forward under a mode that applies the rules of
their cut. A call that computes its sizes from the tensor at hand is right as it is, and is left;
reads of shapes are rewritten only where a cut fails without.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MethodType
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from drc.core.errors import ModelError
from drc.graph.sizes.calls import SizeRule
from drc.graph.sizes.ops import BY_FUNCTION, Given, SizeOp, frames


class Recorder(Protocol):
    """What keeps the calls while a network is traced."""

    def paused(self) -> AbstractContextManager[None]: ...

    def keep_rewritten(self, op: SizeOp, given: Given, sizes: tuple, outputs: Any) -> None: ...


class _Running(threading.local):
    """Whose forward runs in this thread, of those that have been rewritten.

    Rules are about the calls of a forward's own and not of its children, and the calls between
    modules are the network's, which passes nothing on.
    """

    forward: ResizedForward | None = None


_RUNNING = _Running()


class ResizedForward:
    """The forward of one module, under the rules that its cut made necessary.

    Without rules it only keeps those of the modules around it away.

    Attributes:
        rules: of the cut.
        applied: those that some call has met.
        recorder: while the network is traced, where rewritten calls are reported.
    """

    uncompiled: ClassVar[Callable[..., Any]]

    def __init__(self, module: nn.Module, rules: Sequence[SizeRule] = ()) -> None:
        self.rules = tuple(rules)
        self.applied: set[SizeRule] = set()
        self.recorder: Recorder | None = None
        self.by_op: dict[str, list[SizeRule]] = defaultdict(list)
        for rule in rules:
            self.by_op[rule.op].append(rule)
        self._module = module
        self._inner = module.__dict__.get("forward")  # where someone has put another one
        self._keep_from_compiler()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._keep_from_compiler()

    def _keep_from_compiler(self) -> None:
        # Compiled code reads shapes past every mode, so a forward that sees others stays as it is.
        if "shape" in self.by_op:
            ResizedForward.uncompiled = torch.compiler.disable(ResizedForward._run)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = ResizedForward.uncompiled if "shape" in self.by_op else ResizedForward._run
        return run(self, args, kwargs)

    def _run(self, args: tuple, kwargs: dict) -> Any:
        around, _RUNNING.forward = _RUNNING.forward, self
        try:
            if not self.rules:
                return self._forward(*args, **kwargs)
            with _Rewriting(self):
                return self._forward(*args, **kwargs)
        finally:
            _RUNNING.forward = around

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._inner is not None:
            return self._inner(*args, **kwargs)
        return type(self._module).forward(self._module, *args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        """Whose parameters `inspect.signature` gives."""
        return self._inner or MethodType(type(self._module).forward, self._module)

    @property
    def __code__(self) -> Any:
        """Where torch.export says that the forward is."""
        return self.__wrapped__.__code__

    def take_off(self) -> None:
        """Give the module back the forward that it had."""
        del self._module.forward
        if self._inner is not None:
            self._module.forward = self._inner


class _Rewriting(TorchFunctionMode):
    """Applies the size rules of one module to the calls that one run of its forward makes."""

    def __init__(self, owner: ResizedForward) -> None:
        super().__init__()
        self._owner = owner
        self._count: Counter[str] = Counter()
        self._learns = torch.is_grad_enabled()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        op = BY_FUNCTION.get(func) if _RUNNING.forward is self._owner else None
        rules = self._owner.by_op.get(op.name) if op is not None else None
        if op is None or rules is None:
            return func(*args, **kwargs)
        with self._unrecorded():
            given = op.read(func, args, kwargs)
            number = self._count[op.name]
            self._count[op.name] += given is not None
            rule, sizes = _best(op, rules, given, number) if given is not None else (None, ())
        if given is None or rule is None or sizes == given.sizes:
            return func(*args, **kwargs)
        if self._learns and not torch.is_grad_enabled() and _checkpointed():
            raise ModelError(
                "a cut module runs part of its forward again in the backward pass "
                "(checkpoint with use_reentrant=True); checkpoint whole modules instead"
            )
        self._owner.applied.add(rule)
        with self._unrecorded():
            outputs = op.write(func, args, kwargs, sizes)
            if self._owner.recorder is not None:
                self._owner.recorder.keep_rewritten(op, given, sizes, outputs)
        return outputs

    def _unrecorded(self) -> AbstractContextManager[None]:
        recorder = self._owner.recorder
        return nullcontext() if recorder is None else recorder.paused()


def _checkpointed() -> bool:
    """Whether part of the forward runs now, without gradients, to run again with them later."""
    return any(frame.f_globals.get("__name__") == "torch.utils.checkpoint" for frame in frames())


def _best(
    op: SizeOp, rules: Sequence[SizeRule], given: Given, number: int
) -> tuple[SizeRule | None, tuple]:
    """Of the rules that are about a call, the one whose sizes are most like those given.

    Among equals the one whose number in the forward is nearest.
    """
    found = [
        (rule, new)
        for rule in rules
        if given.dim == rule.dim and (new := op.rewritten(rule, given)) is not None
    ]
    if len(found) < 2:  # no comparison: it would bind sizes that an export keeps open
        return found[0] if found else (None, ())

    def rank(candidate: tuple[SizeRule, tuple]) -> tuple[int, int]:
        rule = candidate[0]
        alike = sum(a == b for a, b in zip(given.sizes, rule.old, strict=False))
        return alike, -abs(rule.number - number)

    return max(found, key=rank)


def attach(model: nn.Module, rules: Iterable[SizeRule]) -> None:
    """Let the modules of `model` apply these rules, and no others, in their forward.

    Raises:
        ModelError: a rule is about a module that `model` lacks.
    """
    by_module: dict[str, list[SizeRule]] = defaultdict(list)
    for rule in rules:
        by_module[rule.module].append(rule)
    for earlier in attached(model).values():
        earlier.take_off()
    modules = dict(model.named_modules())
    for name, own in by_module.items():
        if name not in modules:
            raise ModelError(f"the cut names {name}, which this {type(model).__name__} lacks")
        module = modules[name]
        if isinstance(module, nn.modules.conv._ConvNd):
            _regroup(module, own)
        else:
            module.forward = ResizedForward(module, own)
    for name in by_module:
        for child in modules[name].modules():
            if "forward" not in child.__dict__ and not type(child).__module__.startswith("torch."):
                child.forward = ResizedForward(child)


def attached(model: nn.Module) -> dict[str, ResizedForward]:
    """The rewritten forwards of a network, by module name."""
    found = ((n, m.__dict__.get("forward")) for n, m in model.named_modules())
    return {name: forward for name, forward in found if isinstance(forward, ResizedForward)}


def forgets(module: nn.Module) -> bool:
    """Whether copies lose what an instance was given, as the layers of einops do."""
    own = type(module).__mro__[: type(module).__mro__.index(nn.Module)]
    if not any("__getstate__" in vars(cls) for cls in own):
        return False
    try:
        return "forward" not in vars(copy.copy(module))
    except RuntimeError:  # torch refuses to copy parametrised modules so; it copies them deeply
        return False


def _regroup(module: nn.modules.conv._ConvNd, rules: Sequence[SizeRule]) -> None:
    """A convolution module has its number of groups as an attribute."""
    for rule in rules:
        if rule.op == "groups" and rule.new[0] is not None:
            module.groups = rule.new[0]
            module.in_channels = rule.new[0] * module.weight.shape[1]

"""Watching the calls of a forward that are given sizes, and rewriting them in a cut network.

The modules whose code spells out sizes run their forward under a mode that applies the rules of
their cut. A call that computes its sizes from the tensor at hand is right as it is, and is left;
reads of shapes are rewritten only where a cut fails without.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, MethodType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from drc.core.errors import ModelError
from drc.graph.sizes.calls import SizeCall, SizeRule
from drc.graph.sizes.ops import BY_FUNCTION, Given, SizeOp

if TYPE_CHECKING:
    from drc.graph.tracer import Tracer


class _Scope(threading.local):
    """What runs now.

    Attributes:
        owner: the forward whose calls are seen; rules are not about those of its children.
        recorder: keeps the calls, while a network is traced.
        muted: the call at hand is on the record already.
    """

    owner: ResizedForward | None = None
    recorder: SizeRecorder | None = None
    muted: bool = False


_SCOPE = _Scope()


@contextmanager
def _unseen() -> Iterator[None]:
    """Calls made inside are no calls of the forward."""
    _SCOPE.muted = True
    try:
        yield
    finally:
        _SCOPE.muted = False


class SizeRecorder(TorchFunctionMode):
    """Keeps every call of a traced forward that was given sizes."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer
        self._seen: list[SizeCall] = []
        self._count: Counter[tuple[str, int, str]] = Counter()

    def __enter__(self) -> SizeRecorder:
        _SCOPE.recorder = self
        return super().__enter__()

    def __exit__(self, *details: Any) -> None:
        _SCOPE.recorder = None
        super().__exit__(*details)

    @property
    def calls(self) -> list[SizeCall]:
        """The calls in which channels take part."""
        return [call for seen in self._seen if (call := seen.solid()).touches_channels]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        op = BY_FUNCTION.get(func) if not _SCOPE.muted else None
        given = op.read(func, args, kwargs) if op is not None else None
        outputs = func(*args, **kwargs)
        if op is not None and given is not None:
            self.keep(op, given, given[2], outputs, op.spare)
        return outputs

    def keep(
        self, op: SizeOp, given: Given, sizes: tuple, outputs: Any, spare: bool = False
    ) -> None:
        """Record a call: as the code gives it, and the sizes in effect."""
        tensor, dim, written = given
        made = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        run = (*self._tracer.module_run, op.name)
        self._seen.append(
            SizeCall(
                module=self._tracer.module,
                op=op.name,
                dim=dim,
                place=self._count[run],
                written=tuple(int(size) for size in written),
                given=tuple(int(size) for size in sizes),
                shape=tuple(tensor.shape) if tensor is not None else (),
                source=self._tracer.maps_of(tensor),
                targets=[self._tracer.maps_of(x) for x in made if isinstance(x, Tensor)],
                spare=spare,
                site=op.site(),
            )
        )
        self._count[run] += 1


class Resized(TorchFunctionMode):
    """Applies the size rules of one module to the calls that its own forward makes."""

    def __init__(self, owner: ResizedForward) -> None:
        super().__init__()
        self._owner = owner
        self._count: Counter[str] = Counter()
        self._learns = torch.is_grad_enabled()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        mine = _SCOPE.owner is self._owner and not _SCOPE.muted
        op = BY_FUNCTION.get(func) if mine else None
        rules = self._owner.by_op.get(op.name) if op is not None else None
        if op is None or rules is None:
            return func(*args, **kwargs)
        with _unseen():
            given = op.read(func, args, kwargs)
            place = self._count[op.name]
            self._count[op.name] += given is not None
            rule, sizes = _best(op, rules, given, place) if given is not None else (None, ())
        if given is None or rule is None or sizes == given[2]:
            return func(*args, **kwargs)
        if self._learns and not torch.is_grad_enabled() and _checkpointed():
            raise ModelError(
                "a cut module runs part of its forward again in the backward pass "
                "(checkpoint with use_reentrant=True); checkpoint whole modules instead"
            )
        self._owner.applied.add(rule)
        return self._rewrite(op, func, args, kwargs, given, sizes)

    def _rewrite(
        self, op: SizeOp, func: Any, args: tuple, kwargs: dict, given: Given, sizes: tuple
    ) -> Any:
        with _unseen():
            outputs = op.write(func, args, kwargs, sizes)
            if _SCOPE.recorder is not None:
                _SCOPE.recorder.keep(op, given, sizes, outputs)
        return outputs


def _checkpointed() -> bool:
    """Whether part of the forward runs now, without gradients, to run again with them later."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return True
        frame = frame.f_back
    return False


def _best(
    op: SizeOp, rules: Sequence[SizeRule], given: Given, place: int
) -> tuple[SizeRule | None, tuple]:
    """Of the rules that are about a call, the one whose sizes are most like those given.

    Among equals the one whose place in the forward is nearest.
    """
    tensor, dim, sizes = given
    found = [
        (rule, new)
        for rule in rules
        if dim == rule.dim and (new := op.rewritten(rule, tensor, sizes)) is not None
    ]
    if len(found) < 2:  # no comparison: it would bind sizes that an export keeps open
        return found[0] if found else (None, ())

    def rank(candidate: tuple[SizeRule, tuple]) -> tuple[int, int]:
        rule = candidate[0]
        alike = sum(a == b for a, b in zip(sizes, rule.old, strict=False))
        return alike, -abs(rule.place - place)

    return max(found, key=rank)


class ResizedForward:
    """The forward of one module, under the rules that its cut made necessary.

    Without rules it only keeps those of the modules around it away.
    """

    uncompiled: ClassVar[Callable[..., Any]]

    def __init__(self, module: nn.Module, rules: Sequence[SizeRule] = ()) -> None:
        self.rules = tuple(rules)
        self.applied: set[SizeRule] = set()
        self.by_op: dict[str, list[SizeRule]] = defaultdict(list)
        for rule in rules:
            self.by_op[rule.op].append(rule)
        self._module = module
        self._inner = module.__dict__.get("forward")  # where someone has put another one
        self._tell_compiler()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._tell_compiler()

    def _tell_compiler(self) -> None:
        # Compiled code reads shapes past every mode, so a forward that is told some stays as it is.
        if "shape" in self.by_op:
            ResizedForward.uncompiled = torch.compiler.disable(ResizedForward._run)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = ResizedForward.uncompiled if "shape" in self.by_op else ResizedForward._run
        return run(self, args, kwargs)

    def _run(self, args: tuple, kwargs: dict) -> Any:
        around, _SCOPE.owner = _SCOPE.owner, self
        try:
            if not self.rules:
                return self._forward(*args, **kwargs)
            with Resized(self):
                return self._forward(*args, **kwargs)
        finally:
            _SCOPE.owner = around

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._inner is not None:
            return self._inner(*args, **kwargs)
        return type(self._module).forward(self._module, *args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        """Whose parameters `inspect.signature` tells."""
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


def attach(model: nn.Module, rules: Iterable[SizeRule]) -> None:
    """Let the modules of `model` apply these rules, and no others, in their forward.

    Raises:
        ModelError: a rule is about a module that `model` lacks.
    """
    by_module: dict[str, list[SizeRule]] = defaultdict(list)
    for rule in rules:
        by_module[rule.module].append(rule)
    modules = dict(model.named_modules())
    for module in modules.values():
        if isinstance(earlier := module.__dict__.get("forward"), ResizedForward):
            earlier.take_off()
    for name, own in by_module.items():
        if name not in modules:
            raise ModelError(f"the cut names {name}, which this {type(model).__name__} lacks")
        module = modules[name]
        if isinstance(module, nn.modules.conv._ConvNd):
            _regroup(module, own)
        else:
            modules[name].forward = ResizedForward(modules[name], own)
    for name in by_module:
        for child in modules[name].modules():
            if "forward" not in child.__dict__ and not type(child).__module__.startswith("torch."):
                child.forward = ResizedForward(child)


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


def attached(model: nn.Module) -> dict[str, ResizedForward]:
    """The rewritten forwards of a network, by module name."""
    found = ((n, m.__dict__.get("forward")) for n, m in model.named_modules())
    return {name: forward for name, forward in found if isinstance(forward, ResizedForward)}

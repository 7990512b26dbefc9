"""Sizes that a forward spells out: recorded while tracing, rewritten in the cut network.

`view(B, N, 3, heads, 10)`, `split([16, 48])`, `reshape(B, N, C)` with a `C` read off another
tensor: such calls name widths that a cut changes. The tracer records every call with its ids;
from them follows what each size must become at any widths, as plain `SizeRule`s. The modules
that need some run their forward under a mode that applies them. A call that computes its sizes
from the tensor at hand is right as it is, and matches no rule.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from torch.overrides import TorchFunctionMode

from drc.errors import ModelError
from drc.graph.size_ops import BY_FUNCTION, OPS, Given, SizeOp, Sizes, kept_length

if TYPE_CHECKING:
    from drc.graph.tracer import Layers, Tracer


@dataclass(frozen=True)
class SizeRule:
    """One size to rewrite in the forward of one module.

    Attributes:
        module: its name.
        op: the kind of call, a key of `OPS`.
        dim: the dimension that is split or sliced; -1 for the other kinds.
        length: (dimension, length) of the input after the cut, where channels lie.
        old: the sizes as the code gives them; None where any will do.
        new: what they become; None where they stay.
    """

    module: str
    op: str
    dim: int
    length: tuple[tuple[int, int], ...]
    old: Sizes
    new: Sizes

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SizeRule:
        length = tuple((int(dim), int(size)) for dim, size in data["length"])
        old, new = tuple(data["old"]), tuple(data["new"])
        return cls(str(data["module"]), str(data["op"]), int(data["dim"]), length, old, new)

    def after(self, earlier: SizeRule) -> SizeRule | None:
        """The rule with the effect of `earlier` and then this one, if they are about one call."""
        places = [(rule.module, rule.op, rule.dim) for rule in (earlier, self)]
        before = zip(earlier.old, earlier.new, strict=False)
        left = tuple(size if new is None else new for size, new in before)
        if places[0] != places[1] or self.old != left:
            return None
        pairs = zip(earlier.new, self.new, strict=False)
        return replace(self, old=earlier.old, new=tuple(e if n is None else n for e, n in pairs))


@dataclass(frozen=True)
class SizeCall:
    """One call that was given sizes, with the ids around it.

    Attributes:
        module: the module whose forward made the call.
        op: the kind of call, a key of `OPS`.
        dim: the dimension that is split or sliced; -1 for the other kinds.
        given: the sizes, as the code gave them.
        shape: of the input.
        source: id layers of the input.
        targets: id layers of every output.
    """

    module: str
    op: str
    dim: int
    given: tuple[int, ...]
    shape: tuple[int, ...]
    source: Layers
    targets: list[Layers]

    def rule(self, alive: np.ndarray) -> SizeRule | None:
        """The rule at a cut that leaves the ids `alive`, `(ids,)`; None if it has no channels.

        A size that the cut leaves as it was is in the rule too: the code may have read it off
        another tensor, which was cut.
        """
        new = OPS[self.op].needed(self, alive)
        if all(size is None for size in new):
            return None
        found = [(dim, kept_length(self.source, dim, alive)) for dim in range(len(self.shape))]
        length = tuple((dim, size) for dim, size in found if size is not None)
        return SizeRule(self.module, self.op, self.dim, length, self.given, new)

    @property
    def touches_channels(self) -> bool:
        layers = [*self.source, *(ids for target in self.targets for ids in target)]
        return any(ids.numel() > 1 for ids in layers)


class SizeRecorder(TorchFunctionMode):
    """Keeps every call of a traced forward that was given sizes."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer
        self._seen: list[SizeCall] = []

    @property
    def calls(self) -> list[SizeCall]:
        """The calls in which channels take part."""
        return [call for call in self._seen if call.touches_channels]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        op = BY_FUNCTION.get(func)
        given = op.read(func, args, kwargs) if op is not None else None
        if op is not None and given is not None:
            self._keep(op, given, outputs)
        return outputs

    def _keep(self, op: SizeOp, given: tuple, outputs: Any) -> None:
        tensor, dim, sizes = given
        made = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        self._seen.append(
            SizeCall(
                module=self._tracer.module,
                op=op.name,
                dim=dim,
                given=tuple(int(size) for size in sizes),
                shape=tuple(tensor.shape) if tensor is not None else (),
                source=self._tracer.layers(tensor),
                targets=[self._tracer.layers(output) for output in made],
            )
        )


def rules_at(calls: Iterable[SizeCall], alive: np.ndarray) -> tuple[SizeRule, ...]:
    """The rules of all calls at a cut that leaves the ids `alive`, each once."""
    if alive.all():
        return ()
    return tuple(dict.fromkeys(rule for call in calls if (rule := call.rule(alive)) is not None))


def compose(earlier: Sequence[SizeRule], later: Sequence[SizeRule]) -> tuple[SizeRule, ...]:
    """The rules of two cuts in a row, as those of one."""
    rules, used = [], set()
    for rule in later:
        for place, first in enumerate(earlier):
            joined = rule.after(first)
            if joined is not None:
                used.add(place)
                rule = joined
                break
        rules.append(rule)
    return (*(r for place, r in enumerate(earlier) if place not in used), *rules)


class _Scope(threading.local):
    """Whose forward is running: rules are about the calls of one module, not of its children."""

    owner: ResizedForward | None = None


_SCOPE = _Scope()


class Resized(TorchFunctionMode):
    """Applies the size rules of one module to the calls that its own forward makes."""

    def __init__(self, owner: ResizedForward) -> None:
        super().__init__()
        self._owner = owner

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        op = BY_FUNCTION.get(func) if _SCOPE.owner is self._owner else None
        rules = self._owner.by_op.get(op.name) if op is not None else None
        given = op.read(func, args, kwargs) if op is not None and rules else None
        if op is None or rules is None or given is None:
            return func(*args, **kwargs)
        rule, sizes = _best(op, rules, given)
        if rule is None or sizes == given[2]:
            return func(*args, **kwargs)
        self._owner.applied.add(rule)
        return op.write(func, args, kwargs, sizes)


def _best(op: SizeOp, rules: Sequence[SizeRule], given: Given) -> tuple[SizeRule | None, tuple]:
    """Of the rules that are about a call, the one whose sizes are most like those given."""
    tensor, dim, sizes = given
    best: tuple[SizeRule | None, tuple] = (None, ())
    most = -1
    for rule in rules:
        new = op.rewritten(rule, tensor, sizes) if dim == rule.dim else None
        alike = sum(a == b for a, b in zip(sizes, rule.old, strict=False))
        if new is not None and alike > most:
            best, most = (rule, new), alike
    return best


class ResizedForward:
    """The forward of one module, under the rules that its cut made necessary.

    Without rules it only keeps those of the modules around it away.
    """

    def __init__(self, module: nn.Module, rules: Sequence[SizeRule] = ()) -> None:
        self.rules = tuple(rules)
        self.applied: set[SizeRule] = set()
        self.by_op: dict[str, list[SizeRule]] = defaultdict(list)
        for rule in rules:
            self.by_op[rule.op].append(rule)
        self._module = module
        self._inner = module.__dict__.get("forward")  # where someone has put another one

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
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


__all__ = ["SizeCall", "SizeRecorder", "SizeRule", "attach", "attached", "compose", "rules_at"]

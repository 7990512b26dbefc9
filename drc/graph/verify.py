"""Prove on the network itself that cutting equals masking; freeze the groups where it does not."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from drc.errors import ModelError
from drc.graph.groups import ChannelGraph, Group
from drc.graph.surgery import KeepSets, cut, mask

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # of the output's magnitude
_PATTERNS = 4
_NO_WEIGHT = 1e-4


def verify(model: nn.Module, graph: ChannelGraph, inputs: Tensor, seed: int = 0) -> ChannelGraph:
    """Return `graph` without the groups whose removal fails or changes more than it should.

    All groups are cut at once, each to a random width, in several patterns and at two input
    sizes; the cut network must also run in training mode. Only when a pattern fails are the
    culprits found by halving. The comparison runs in float64 where the network allows it, and
    parameters that are all zero are given values first, because a closed branch hides its faults.

    Args:
        model: the network, in eval mode; it is not changed.
        graph: what the tracer found.
        inputs: the example input.
        seed: of the random patterns.
    """
    judge = _Judge(model, graph, inputs)
    reasons: dict[str, str] = {}
    for number in range(_PATTERNS):
        pattern = _random_pattern(graph, seed + number)
        while True:
            healthy = [group for group in graph.groups if group.name not in reasons]
            why = judge.failure({group.name: pattern[group.name] for group in healthy}, number)
            if why is None:
                break
            reasons.update(_culprits(judge, healthy, pattern, number, why))
    return graph.freeze(reasons) if reasons else graph


def check(model: nn.Module, graph: ChannelGraph, keep: KeepSets, inputs: Tensor) -> None:
    """Raise ModelError unless cutting `model` to `keep` equals masking it, at two input sizes."""
    judge = _Judge(model, graph, inputs)
    for number in range(len(judge.images)):
        why = judge.failure(keep, number)
        if why is not None:
            raise ModelError(f"the cut network is not what it should be ({why}); please report it")


def compare(model: nn.Module, graph: ChannelGraph, keep: KeepSets, inputs: Tensor) -> float:
    """Largest difference between the cut and the masked network, in units of the output."""
    return _difference(cut(model, graph, keep), mask(model, graph, keep), inputs)


class _Judge:
    """A copy of the network, prepared for comparisons, and what they compare."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, inputs: Tensor) -> None:
        self.graph = graph
        self.model, inputs = _in_double(model, inputs)
        larger = torch.cat((torch.cat((inputs, inputs.flip(-1)), -1),) * 2, -2)
        self.images = [x for x in (inputs, larger) if _runs(self.model, x)]
        self.trains = _runs(copy.deepcopy(self.model).train(), inputs)
        exact = inputs.dtype == torch.float64 and not _leaves_double(self.model, inputs)
        tolerance = _TOLERANCE[torch.float64 if exact else torch.float32]
        self.allowed = [tolerance * _magnitude(self.model, image) for image in self.images]

    def failure(self, keep: KeepSets, number: int) -> str | None:
        """Why cutting to `keep` goes wrong, or None when it equals masking."""
        if not keep:
            return None
        which = number % len(self.images)
        try:
            small = cut(self.model, self.graph, keep)
            error = _difference(small, mask(self.model, self.graph, keep), self.images[which])
            if self.trains:
                small.train()
                with torch.no_grad():
                    small(self.images[which])
        except Exception as caught:  # whatever a foreign forward raises on other sizes
            text = str(caught).splitlines()
            return (
                f"cutting it breaks the forward pass ({text[0] if text else type(caught).__name__})"
            )
        if error <= self.allowed[which]:
            return None
        return f"cutting it differs from masking it by {error:.1e}"


def _culprits(
    judge: _Judge, groups: Sequence[Group], pattern: Mapping[str, list[int]], number: int, why: str
) -> dict[str, str]:
    """The smallest failing parts, found by halving; parts that fail only together go together."""
    if len(groups) == 1:
        return {groups[0].name: why}
    middle = len(groups) // 2
    found: dict[str, str] = {}
    for half in (groups[:middle], groups[middle:]):
        reason = judge.failure({group.name: pattern[group.name] for group in half}, number)
        if reason is not None:
            found.update(_culprits(judge, half, pattern, number, reason))
    return found or {group.name: why for group in groups}


def _difference(first: nn.Module, second: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        ours, theirs = _outputs(first(inputs)), _outputs(second(inputs))
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        return math.inf
    errors = [(x - y).abs().max().item() for x, y in zip(ours, theirs, strict=True)]
    return max((math.inf if math.isnan(e) else e for e in errors), default=0.0)


def _random_pattern(graph: ChannelGraph, seed: int) -> dict[str, list[int]]:
    """Keep a random number of atoms in every group, so that hidden couplings show."""
    generator = torch.Generator().manual_seed(seed)
    pattern = {}
    for group in graph.groups:
        width = 1 + int(torch.randint(group.size, (1,), generator=generator))
        order = torch.randperm(group.size, generator=generator).tolist()
        pattern[group.name] = sorted(order[:width])
    return pattern


def _in_double(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, Tensor]:
    """A copy, in float64 where it runs in that, so that rounding is not taken for a fault."""
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.is_floating_point() and parameter.abs().max() < _NO_WEIGHT:
                noise = 0.1 * torch.rand(parameter.shape, generator=generator)
                parameter.copy_(noise.to(parameter))
    double = copy.deepcopy(twin).double()
    if _runs(double, inputs.double()):
        return double, inputs.double()
    return twin, inputs


def _runs(model: nn.Module, inputs: Tensor) -> bool:
    try:
        with torch.no_grad():
            model(inputs)
        return True
    except Exception:  # a foreign forward may raise anything
        return False


def _leaves_double(model: nn.Module, inputs: Tensor) -> bool:
    """Whether some op of a float64 network computes in less, which limits what can be told."""
    with _Watch() as watch, torch.no_grad():
        model(inputs)
    return watch.saw_less


class _Watch(TorchDispatchMode):
    saw_less = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for leaf in _outputs(outputs):
            self.saw_less |= leaf.is_floating_point() and leaf.dtype != torch.float64
        return outputs


def _magnitude(model: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        return max(1e-6, *(x.abs().max().item() for x in _outputs(model(inputs))))


def _outputs(outputs: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]

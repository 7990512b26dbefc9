"""Prove on the network itself that cutting equals masking; freeze the groups where it does not."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from drc.graph.groups import ChannelGraph, Group
from drc.graph.surgery import cut, mask

_TOLERANCE = 1e-5
_SHARE_REMOVED = 0.4


def verify(model: nn.Module, graph: ChannelGraph, inputs: Tensor, seed: int = 0) -> ChannelGraph:
    """Return `graph` without the groups whose removal fails or changes more than it should.

    All groups are cut at once in a random pattern; only when that fails are the culprits found
    by halving. The comparison runs in float64 where the network allows it.

    Args:
        model: the network, in eval mode; it is not changed.
        graph: what the tracer found.
        inputs: the example input.
        seed: of the random pattern.
    """
    model, inputs = _in_double(model, inputs)
    pattern = _random_pattern(graph, seed)
    reasons: dict[str, str] = {}
    while True:
        healthy = [g for g in graph.groups if g.name not in reasons]
        why = _failure(model, graph, healthy, pattern, inputs)
        if why is None:
            return graph.freeze(reasons) if reasons else graph
        reasons.update(_culprits(model, graph, healthy, pattern, inputs, why))


def compare(model: nn.Module, graph: ChannelGraph, keep: dict, inputs: Tensor) -> float:
    """Largest difference between the cut and the masked network, in units of the output."""
    with torch.no_grad():
        small = _outputs(cut(model, graph, keep)(inputs))
        masked = _outputs(mask(model, graph, keep)(inputs))
    if [x.shape for x in small] != [x.shape for x in masked]:
        return math.inf
    errors = [(x - y).abs().max().item() for x, y in zip(small, masked, strict=True)]
    return max((math.inf if math.isnan(e) else e for e in errors), default=0.0)


def _culprits(
    model: nn.Module,
    graph: ChannelGraph,
    groups: list[Group],
    pattern: dict[str, list[int]],
    inputs: Tensor,
    why: str,
) -> dict[str, str]:
    """The smallest failing parts, found by halving; parts that fail only together go together."""
    if len(groups) == 1:
        return {groups[0].name: why}
    middle = len(groups) // 2
    found: dict[str, str] = {}
    for half in (groups[:middle], groups[middle:]):
        reason = _failure(model, graph, half, pattern, inputs)
        if reason is not None:
            found.update(_culprits(model, graph, half, pattern, inputs, reason))
    return found or {group.name: why for group in groups}


def _failure(
    model: nn.Module,
    graph: ChannelGraph,
    groups: list[Group],
    pattern: dict[str, list[int]],
    inputs: Tensor,
) -> str | None:
    """Why cutting `groups` goes wrong, or None when it equals masking."""
    keep = {group.name: pattern[group.name] for group in groups}
    if not keep:
        return None
    try:
        error = compare(model, graph, keep, inputs)
    except Exception as caught:  # whatever a foreign forward raises on other sizes
        text = str(caught).splitlines()
        return f"cutting it breaks the forward pass ({text[0] if text else type(caught).__name__})"
    scale = _magnitude(model, inputs)
    if error <= _TOLERANCE * scale:
        return None
    return f"cutting it differs from masking it by {error:.1e}"


def _magnitude(model: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        return max(1e-6, *(x.abs().max().item() for x in _outputs(model(inputs))))


def _random_pattern(graph: ChannelGraph, seed: int) -> dict[str, list[int]]:
    """Keep a different number of atoms in every group, so that hidden couplings show."""
    generator = torch.Generator().manual_seed(seed)
    pattern = {}
    for number, group in enumerate(graph.groups):
        gone = max(1, round(group.size * _SHARE_REMOVED)) + number % 2
        order = torch.randperm(group.size, generator=generator).tolist()
        pattern[group.name] = sorted(order[: max(1, group.size - gone)])
    return pattern


def _outputs(outputs: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _in_double(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, Tensor]:
    """Copies in float64, so that rounding cannot be taken for a fault; else the originals."""
    try:
        double = copy.deepcopy(model).double()
        with torch.no_grad():
            double(inputs.double())
        return double, inputs.double()
    except Exception:  # a forward that insists on float32
        return model, inputs

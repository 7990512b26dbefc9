"""What drc does with one network: trace, cut, compare, save, apply, train."""

from __future__ import annotations

import copy
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import drc
from benchmarks.coverage.child import Log, build, forward, images, seconds
from benchmarks.zoo import networks
from drc.graph.cost import CostModel
from drc.graph.groups import ChannelGraph
from drc.graph.inputs import call, map_inputs
from drc.graph.surgery import KeepSets, cut
from drc.graph.trace import trace
from drc.graph.verify import compare
from drc.report.inspection import frozen_kind

RATIO = 0.3


def prune(log: Log, name: str, folder: Path) -> None:
    """Trace, cut 30 % of the parameters, compare with masking, save, train."""
    trace(build("gated")[0])  # so that no import is timed
    model, inputs = build(name)
    log.facts(params=sum(p.numel() for p in model.parameters()), inputs=_sizes(inputs))
    graph = small = None
    with log.stage("trace"):
        forward(model, inputs)
        times = sorted(seconds(lambda: forward(model, inputs)) for _ in range(3))
        log.facts(forward_seconds=round(times[1], 4))
        bare = seconds(lambda: trace(model, inputs, check=False))
        log.facts(trace_unverified_seconds=round(bare, 3))
        taken: list[ChannelGraph] = []
        whole = seconds(lambda: taken.append(trace(model, inputs)))
        graph = taken[0]
        log.facts(trace_seconds=round(whole, 3), **_groups(graph))
    if graph is None:
        return
    keep, removed = uniform_keep(model, graph)
    log.facts(params_removable=_most_removable(model, graph))
    with log.stage("cut"):
        small = cut(model, graph, keep).eval()
        dense, left = (sum(p.numel() for p in m.parameters()) for m in (model, small))
        log.facts(removed=round(1 - left / dense, 4), predicted=round(removed, 4))
        result = forward(small, inputs)
        log.facts(shape_kept=_shapes(result) == _shapes(forward(model, inputs)))
        log.facts(other_size=_keeps_shape_elsewhere(model, small, inputs))
    if small is None:
        return
    with log.stage("save"):
        drc.save(small, folder / "small.safetensors")
        torch.save((inputs, images(forward(small, inputs))), folder / "expected.pt")
    with log.stage("backward"):
        log.facts(backward=_trains(model, small, inputs))
    del small
    with log.stage("equal"):
        log.facts(**_masking_error(model, graph, keep, inputs))


def apply(log: Log, name: str, folder: Path) -> None:
    """Fill a network that was just built from the file, and compare bit for bit."""
    inputs, expected = torch.load(folder / "expected.pt", weights_only=True)
    small = drc.apply(networks()[name].build(), folder / "small.safetensors")
    found = images(forward(small, inputs))
    same = len(found) == len(expected) and all(map(torch.equal, found, expected))
    again = images(forward(small, inputs))
    if not same and not all(map(torch.equal, found, again)):
        log.facts(apply="its outputs are random")
        return
    log.facts(apply="exact" if same else "differs")


def uniform_keep(model: nn.Module, graph: ChannelGraph) -> tuple[dict[str, Any], float]:
    """Random atoms, the same share of every group, so that 30 % of the parameters go.

    Every block of a group keeps atoms of its own. Where 30 % is out of reach, one atom stays.
    Returns the keep sets, and the share of the parameters that goes.
    """
    cost = CostModel(graph, model)
    dense = cost(cost.dense)

    def widths(share: float) -> dict[str, int]:
        return {group.name: max(1, round(share * group.size)) for group in graph.groups}

    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if cost(widths(middle)) <= (1 - RATIO) * dense:
            low = middle
        else:
            high = middle
    generator = torch.Generator().manual_seed(0)
    keep = {}
    for group in graph.groups:
        width = widths(low)[group.name]
        orders = [torch.randperm(group.size, generator=generator) for _ in range(group.blocks)]
        blocks = [sorted(order[:width].tolist()) for order in orders]
        keep[group.name] = blocks if group.blocks > 1 else blocks[0]
    return keep, 1 - cost(widths(low)) / dense


def _most_removable(model: nn.Module, graph: ChannelGraph) -> float:
    """The share of the parameters that lies in removable channels."""
    cost = CostModel(graph, model)
    return round(1 - cost(0 * cost.dense) / max(1, cost(cost.dense)), 4)


def _groups(graph: ChannelGraph) -> dict[str, Any]:
    kinds = Counter(frozen_kind(f) for f in graph.frozen)
    removable, frozen = len(graph.groups), kinds["frozen"]
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for entry in graph.frozen:
        if frozen_kind(entry) == "frozen":
            reason = re.sub(r"\d+(\.\d+e[-+]\d+)?", "N", re.sub(r" in \S+$", "", entry.reason))
            reasons[reason] += 1
            examples.setdefault(reason, entry.name)
    return {
        "groups": removable + frozen,
        "removable": removable,
        "percent_removable": round(100 * removable / max(1, removable + frozen), 1),
        "network_ends": kinds["end"],
        "size_one": kinds["single"],
        "head_counts": kinds["count"],
        "frozen": [
            {"reason": reason, "groups": count, "first": examples[reason]}
            for reason, count in reasons.most_common()
        ],
    }


def _masking_error(
    model: nn.Module, graph: ChannelGraph, keep: KeepSets, inputs: Any
) -> dict[str, Any]:
    """Largest difference between cut and masked, relative to the output, in float64 if it runs.

    The model is widened in place: a second copy of the largest would not fit.
    """
    given, dtype = map_inputs(Tensor.double, inputs), "float64"
    try:
        expected = images(forward(model.double(), given))
    except Exception:  # a foreign forward that fixes its number type
        given, dtype = inputs, "float32"
        expected = images(forward(model.float(), given))
    magnitude = max(x.abs().max().item() for x in expected)
    error = compare(model, graph, keep, given) / max(magnitude, 1e-12)
    return {"max_error": float(f"{error:.2e}"), "compared_in": dtype}


def _trains(model: nn.Module, small: nn.Module, inputs: Any) -> str:
    """Whether the same parameters get finite gradients, in training mode if the dense net can."""
    for mode in (True, False):
        try:
            dense = _gradients(copy.deepcopy(model).train(mode), inputs)
        except Exception:  # such as a batch norm on one value
            continue
        ours = _gradients(copy.deepcopy(small).train(mode), inputs)
        if missing := sorted(dense.keys() - ours.keys()):
            return f"{len(missing)} parameters without gradient, first {missing[0]}"
        wrong = [n for n, finite in ours.items() if not finite and dense.get(n)]
        return f"not finite: {wrong[0]}" if wrong else "runs" if mode else "runs in eval mode"
    return "n/a (dense fails too)"


def _gradients(model: nn.Module, inputs: Any) -> dict[str, bool]:
    torch.manual_seed(0)
    loss = sum((x.square().mean() for x in images(call(model, inputs))), torch.zeros(()))
    loss.backward()
    return {
        name: bool(p.grad.isfinite().all())
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def _keeps_shape_elsewhere(model: nn.Module, small: nn.Module, inputs: Any) -> bool | None:
    """Whether shapes agree on two images of twice the size; None where the dense net fails."""
    larger = map_inputs(lambda x: x.repeat(2, *(1,) * (x.ndim - 3), 2, 2), inputs)
    try:
        expected = _shapes(forward(model, larger))
    except Exception:
        return None
    return _shapes(forward(small, larger)) == expected


def _shapes(outputs: Any) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in images(outputs)]


def _sizes(inputs: Any) -> list[list[int]]:
    return [list(x.shape) for x in images(inputs)]

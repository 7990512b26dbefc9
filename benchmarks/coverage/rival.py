"""Stock torch-pruning on one network: what a user gets who knows it but adds no work-around.

It is told which layers write the images that come out, gets the same inputs, and is asked for
ratios until about 30 % of the parameters are gone. Nothing is done about what it misunderstands.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage.child import Log, build, forward, images
from drc.graph.inputs import call

TARGET = 0.3
_NEAR = 0.04
_AT_LEAST = 0.1
_ATTEMPTS = 6


def rival(log: Log, name: str) -> None:
    """Prune with torch-pruning; record the outcome, the time and the parameters removed.

    Outcomes: `prunes` when the network runs, keeps its output shapes and has lost at least
    10 % of its parameters; otherwise what went wrong.
    """
    import torch_pruning  # noqa: F401  (loaded before time is taken)

    model, inputs = build(name)
    outputs = _layers_that_write_images(model, inputs)
    shapes = [x.shape for x in images(forward(model, inputs))]
    log.facts(rival="did not end")  # stands if a limit stops the process
    best: dict[str, Any] | None = None
    low, high = 0.0, 1.0
    ratio = 1 - (1 - TARGET) ** 0.5
    for _ in range(_ATTEMPTS):
        start = time.perf_counter()
        found = _attempt(copy.deepcopy(model), inputs, outputs, ratio, shapes)
        seconds = round(time.perf_counter() - start, 2)
        if "rival_removed" not in found:
            if best is None:
                log.facts(rival_seconds=seconds, **found)
                return
            break
        if best is None or _distance(found) < _distance(best):
            best = found
            log.facts(rival_seconds=seconds, **found)
        if _distance(found) <= _NEAR:
            break
        low, high = (ratio, high) if found["rival_removed"] < TARGET else (low, ratio)
        ratio = (low + high) / 2


def _distance(found: dict[str, Any]) -> float:
    return abs(found["rival_removed"] - TARGET)


def _attempt(
    model: nn.Module, inputs: Any, outputs: list[str], ratio: float, shapes: list[torch.Size]
) -> dict[str, Any]:
    """Prune `model` in place. The key `rival_removed` is there when it could be run afterwards."""
    import torch_pruning as tp

    before = _size(model)
    step = "cannot be analysed"
    try:
        pruner = tp.pruner.MetaPruner(
            model,
            (inputs,) if isinstance(inputs, Tensor) else inputs,
            importance=tp.importance.GroupMagnitudeImportance(p=1),
            pruning_ratio=ratio,
            ignored_layers=[model.get_submodule(name) for name in outputs],
            # Its defaults are dicts that all pruners of a process would share.
            in_channel_groups={},
            out_channel_groups={},
            num_heads={},
        )
        step = "pruning fails"
        pruner.step()
        step = "does not run"
        with torch.no_grad():
            found = [x.shape for x in images(call(model, inputs))]
    except Exception as error:
        text = " ".join(str(error).split())
        return {"rival": step, "rival_error": f"{type(error).__name__}: {text}"[:240]}
    removed = round(1 - _size(model) / before, 4)
    if found != shapes:
        return {
            "rival": "changes the output's shape",
            "rival_error": f"{[tuple(x) for x in found]}, not {[tuple(x) for x in shapes]}",
        }
    outcome = "prunes" if removed >= _AT_LEAST else "removes too little"
    return {"rival": outcome, "rival_removed": removed, "rival_ratio": round(ratio, 3)}


def _layers_that_write_images(model: nn.Module, inputs: Any) -> list[str]:
    """Names of the layers whose own output channels are those of the images that come out.

    Found by going back from the images through everything that is no product with weights.
    """
    twin = copy.deepcopy(model).requires_grad_(True)
    owner = {
        id(parameter): name.rpartition(".")[0].partition(".parametrizations")[0]
        for name, parameter in twin.named_parameters()
    }
    found: dict[str, None] = {}
    nodes = [x.grad_fn for x in images(call(twin, inputs))]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        parents = [parent for parent, _ in node.next_functions]
        if not _multiplies(node):
            nodes += parents
            continue
        # Of a convolution the image comes first; of a linear layer, the bias.
        factors = parents[1:] if "Convolution" in node.name() else parents
        names = [owner[id(p)] for factor in factors for p in _own_parameters(factor)]
        found.update(dict.fromkeys(names))
        if not names:
            nodes += parents
    return list(found)


def _multiplies(node: Any) -> bool:
    return any(word in node.name() for word in ("Convolution", "Addmm", "MmBackward"))


def _own_parameters(node: Any, depth: int = 4) -> list[nn.Parameter]:
    """Parameters from which a weight is made in a few steps, none of them a product."""
    if node is None or not depth or _multiplies(node):
        return []
    if hasattr(node, "variable"):
        return [node.variable]
    return [p for parent, _ in node.next_functions for p in _own_parameters(parent, depth - 1)]


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())

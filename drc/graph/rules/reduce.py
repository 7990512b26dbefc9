"""Reductions and softmax: a channel that is mixed with its neighbours cannot be removed."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from drc.graph.ids import varies
from drc.graph.rules.pointwise import pointwise
from drc.graph.tracer import Tracer, rule


@rule(
    "aten::mean", "aten::sum", "aten::amax", "aten::amin", "aten::var", "aten::std",
    "aten::var_mean", "aten::std_mean", "aten::linalg_vector_norm", "aten::norm", "aten::max",
    "aten::min", "aten::logsumexp", "aten::prod", "aten::any", "aten::all",
)  # fmt: skip
def reduction(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    if len(args) > 1 and isinstance(args[1], Tensor):  # max(a, b) is element-wise
        return pointwise(tracer, func, args, kwargs, outputs)
    image = args[0]
    bound = _bind(func, args, kwargs)
    dims = bound.get("dim")
    if dims is None or dims == []:
        dims = list(range(image.ndim))
    dims = sorted({d % image.ndim for d in ([dims] if isinstance(dims, int) else dims)})
    keepdim = bool(bound.get("keepdim", False))
    kept = []
    for ids in tracer.layers(image):
        inside = [d for d in dims if varies(ids, d)]
        if inside and any(varies(ids, d) for d in range(ids.ndim) if d not in dims):
            # The parts of one channel, as after PixelShuffle: they go together.
            first = ids.amax(inside, keepdim=True)
            tracer.space.tie(first, ids)
            ids = first.expand(ids.shape)
        elif inside:
            tracer.freeze([ids], f"summed over by {func._schema.name.replace('::', '.')}")
            continue
        for d in reversed(dims):
            ids = ids.narrow(d, 0, 1) if keepdim else ids.select(d, 0)
        kept.append(ids)
    for output in tree_leaves(outputs):
        tracer.set_layers(output, kept)


@rule("aten::_softmax", "aten::_log_softmax", "aten::cumsum", "aten::glu")
def softmax(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    dim = _bind(func, args, kwargs).get("dim", -1)
    mixed = [ids for ids in tracer.layers(args[0]) if varies(ids, dim)]
    tracer.freeze(mixed, f"mixed by {func._schema.name.replace('::', '.')}")
    if outputs.shape == args[0].shape:
        tracer.set_layers(outputs, tracer.layers(args[0]))


def _bind(func: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """Arguments by the names of the op's schema."""
    names = [argument.name for argument in func._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}

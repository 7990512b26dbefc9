"""Statistics over channels: sums, means, norms, softmax, normalisation layers.

A channel that takes part in a statistic can go: the statistic is then one of fewer channels, as
it is in the smaller network. (Masking must leave the channel out too: `drc.graph.verify.masked`.)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from drc.graph.inputs import tensors_of
from drc.graph.rules.common import (
    along,
    as_map,
    bind,
    first_output,
    op_name,
    split_by_variation,
    tie_to,
    varies,
)
from drc.graph.rules.pointwise import pointwise
from drc.graph.tracer import Tracer, rule

_SUMS = ("aten::mean", "aten::sum")


@rule(
    "aten::mean", "aten::sum", "aten::amax", "aten::amin", "aten::var", "aten::std",
    "aten::var_mean", "aten::std_mean", "aten::linalg_vector_norm", "aten::norm", "aten::max",
    "aten::min", "aten::logsumexp", "aten::any", "aten::all",
)  # fmt: skip
def reduction(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Along the dimensions that go, channels are read; along the others they flow on."""
    if len(args) > 1 and isinstance(args[1], Tensor):  # max(a, b) is element-wise
        return pointwise(tracer, func, args, kwargs, outputs)
    dims = reduced_dims(func, args, kwargs)
    keepdim = bool(bind(func, args, kwargs).get("keepdim", False))
    maps = []
    for ids in tracer.maps_of(args[0]):
        inside = [dim for dim in dims if varies(ids, dim)]
        outside = [d for d in range(ids.ndim) if d not in dims and varies(ids, d)]
        if inside:
            tracer.space.mark_mixed(ids)
        if inside and outside and func._schema.name in _SUMS:
            # The parts of one channel, as after PixelShuffle, or branches: they go together.
            first = ids.amax(inside, keepdim=True)
            tracer.space.tie(first, ids)
            ids = first
        elif inside:
            continue
        for dim in reversed(dims):
            ids = ids if keepdim else ids.select(dim, 0)
        maps.append(ids)
    for output in tensors_of(outputs):
        tracer.set_maps(output, maps)


def reduced_dims(func: Any, args: tuple, kwargs: dict) -> list[int]:
    """The dimensions an op reduces or normalises over, ascending."""
    rank = args[0].ndim
    dims = bind(func, args, kwargs).get("dim")
    if dims is None or dims == []:
        return list(range(rank))
    return sorted({d % rank for d in ([dims] if isinstance(dims, int) else dims)})


@rule("aten::_softmax", "aten::_log_softmax", "aten::softmax")
def softmax(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    for ids in tracer.maps_of(args[0]):
        if varies(ids, reduced_dims(func, args, kwargs)[0]):
            tracer.space.mark_mixed(ids)
    tracer.set_maps(outputs, tracer.maps_of(args[0]))


@rule(
    "aten::cumsum", "aten::cumprod", "aten::topk", "aten::sort", "aten::argsort", "aten::prod",
    "aten::argmax", "aten::argmin",
)  # fmt: skip
def ordered(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Ops in which a channel's rank among the others counts."""
    dims = reduced_dims(func, args, kwargs)
    mixed, kept = split_by_variation(tracer.maps_of(args[0]), *dims)
    tracer.freeze(mixed, f"ordered by {op_name(func)}")
    for output in tensors_of(outputs):
        if output.is_floating_point():
            tracer.set_maps(output, kept if output.ndim == args[0].ndim else [])


@rule(
    "aten::native_batch_norm", "aten::_native_batch_norm_legit",
    "aten::_native_batch_norm_legit_no_training", "aten::cudnn_batch_norm",
    "aten::_native_batch_norm_legit_functional", "aten::_batch_norm_no_update",
    "aten::_batch_norm_with_update",
)  # fmt: skip
def batch_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    image, maps = args[0], []
    for ids in tracer.maps_of(image):
        channels = along(tracer, ids, 1, image.shape[1])
        tie_to(tracer, channels, args[1:5])
        maps.append(as_map(channels, 1, image.ndim))
    tracer.set_maps(outputs[0], maps)


@rule("aten::native_layer_norm", "aten::_fused_rms_norm", "aten::rms_norm")
def layer_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """The last dimensions are normalised; scale and shift have the channels' ids."""
    image, shape = args[0], args[1]
    for ids in tracer.maps_of(image):
        inside = [d for d in range(image.ndim - len(shape), image.ndim) if varies(ids, d)]
        if inside:
            tracer.space.mark_mixed(ids)
        if len(shape) > 1 and inside:
            tracer.freeze([ids], f"normalised together with pixels by {op_name(func)}")
        tie_to(tracer, ids, args[2:4] if inside else ())
    tracer.set_maps(first_output(outputs), tracer.maps_of(image))
    for tensor in args[2:4]:
        if tracer.maps_of(tensor) and not tracer.maps_of(image):
            tracer.freeze(tracer.maps_of(tensor), "normalises what carries no channels")


@rule("aten::native_group_norm")
def group_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Every group of channels has statistics of its own and loses equally many."""
    image, groups, maps = args[0], args[6], []
    for ids in tracer.maps_of(image):
        channels = along(tracer, ids, 1, image.shape[1])
        tie_to(tracer, channels, args[1:3])
        tracer.space.keep_rectangular(channels.reshape(groups, -1))
        tracer.space.mark_mixed(channels)
        maps.append(as_map(channels, 1, image.ndim))
    tracer.set_maps(outputs[0], maps)

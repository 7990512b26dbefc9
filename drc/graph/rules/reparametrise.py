"""Fused ops that compute weights from parameters, or gate one half by the other."""

from __future__ import annotations

from typing import Any

from drc.graph.rules.common import bind
from drc.graph.rules.pointwise import combine
from drc.graph.tracer import Tracer, rule


@rule("aten::_weight_norm_interface", "aten::_weight_norm")
def weight_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """g v / |v|: the scale has one entry per index of the dimension that is kept."""
    weight = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    tracer.set_maps(weight, combine(tracer, [args[0], args[1]], weight.shape))


@rule("aten::glu")
def glu(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """First half times the sigmoid of the second: the halves are tied."""
    image = args[0]
    dim = bind(func, args, kwargs)["dim"] % image.ndim
    size, maps = image.shape[dim] // 2, []
    for ids in tracer.wide_maps(image):
        first, second = ids.narrow(dim, 0, size), ids.narrow(dim, size, size)
        tracer.space.tie(first, second)
        maps.append(first)
    tracer.set_maps(outputs, maps)

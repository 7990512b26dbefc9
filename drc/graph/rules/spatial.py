"""Pooling and interpolation: each channel is mixed only with itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from drc.graph.rules.common import along, place
from drc.graph.tracer import Tracer, rule

_RANK = {"1d": 1, "2d": 2, "3d": 3}


@rule(
    "aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d", "aten::adaptive_avg_pool1d",
    "aten::_adaptive_avg_pool2d", "aten::adaptive_avg_pool2d", "aten::_adaptive_avg_pool3d",
    "aten::max_pool2d_with_indices", "aten::max_pool2d", "aten::max_pool3d_with_indices",
    "aten::adaptive_max_pool2d", "aten::upsample_nearest1d", "aten::upsample_nearest2d",
    "aten::_upsample_nearest_exact2d", "aten::upsample_nearest3d", "aten::upsample_linear1d",
    "aten::upsample_bilinear2d", "aten::_upsample_bilinear2d_aa", "aten::upsample_bicubic2d",
    "aten::_upsample_bicubic2d_aa", "aten::upsample_trilinear3d", "aten::grid_sampler_2d",
)  # fmt: skip
def spatial(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    name = func._schema.name
    rank = next(r for suffix, r in _RANK.items() if suffix in name or name.endswith(f"_{r}d"))
    image = args[0]
    dim = image.ndim - rank - 1
    for output in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
        if isinstance(output, Tensor):
            found = [along(tracer, ids, dim) for ids in tracer.layers(image)]
            tracer.set_layers(output, [place(ids, dim, output.shape) for ids in found])

"""Pooling, interpolation, Fourier transforms: each channel is mixed only with itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from drc.graph.rules.common import along, as_map, bind, op_name, split_by_variation, varies
from drc.graph.tracer import Tracer, rule

_RANK = {"1d": 1, "2d": 2, "3d": 3}


@rule(
    "aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d", "aten::adaptive_avg_pool1d",
    "aten::_adaptive_avg_pool2d", "aten::adaptive_avg_pool2d", "aten::_adaptive_avg_pool3d",
    "aten::max_pool2d_with_indices", "aten::max_pool2d", "aten::max_pool3d_with_indices",
    "aten::max_pool1d", "aten::max_pool1d_with_indices", "aten::adaptive_max_pool1d",
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
            found = [_per_channel(tracer, ids, dim, rank) for ids in tracer.maps_of(image)]
            tracer.set_maps(output, found)


def _per_channel(tracer: Tracer, ids: Tensor, dim: int, rank: int) -> Tensor:
    """A map that varies along no pixel: tie the pixels of a channel where it does."""
    if not any(varies(ids, other) for other in range(dim + 1, dim + 1 + rank)):
        return ids
    return as_map(along(tracer, ids, dim, ids.shape[dim]), dim, ids.ndim)


@rule(
    "aten::_fft_r2c",
    "aten::_fft_c2c",
    "aten::_fft_c2r",
    "aten::fft_fftshift",
    "aten::fft_ifftshift",
)
def fourier(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    dims = bind(func, args, kwargs)["dim"]
    mixed, kept = split_by_variation(tracer.maps_of(args[0]), *dims)
    tracer.freeze(mixed, f"mixed by {op_name(func)}")
    tracer.set_maps(outputs, kept)


@rule("aten::col2im")
def fold(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """`(N, C k k, L)` to `(N, C, H, W)`: the k k parts of a channel overlap, so they are tied."""
    columns, channels = args[0], outputs.shape[-3]
    maps = []
    for ids in tracer.maps_of(columns):
        parts = ids if ids.ndim == 3 else ids[None]
        found = along(tracer, parts, 1, columns.shape[-2]).reshape(channels, -1)
        first = found.amax(1)
        tracer.space.tie(first[:, None], found)
        maps.append(as_map(first, outputs.ndim - 3, outputs.ndim))
    tracer.set_maps(outputs, maps)

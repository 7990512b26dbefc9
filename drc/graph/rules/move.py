"""Data movement: the very same op is applied to the ids."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from drc.graph.ids import NO_CHANNEL, compact, varying_dims
from drc.graph.inputs import tensors_of
from drc.graph.rules.common import bind, split_by_variation, varies
from drc.graph.tracer import Tracer, rule


@rule(
    "aten::permute", "aten::transpose", "aten::t", "aten::expand", "aten::select",
    "aten::unsqueeze", "aten::squeeze", "aten::diagonal", "aten::unbind", "aten::rot90",
    "aten::pixel_shuffle", "aten::pixel_unshuffle",
    "aten::channel_shuffle", "aten::native_channel_shuffle", "aten::unfold",
    "aten::repeat", "aten::cat", "aten::movedim", "aten::narrow",
    "aten::unsafe_chunk", "aten::unsafe_split_with_sizes",
)  # fmt: skip
def move(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Ops that only copy or rearrange elements; what they pad with belongs to no channel."""
    depth = max((len(tracer.maps_of(t)) for t in tensors_of((args, kwargs))), default=0)
    moved = [_apply(tracer, func, args, kwargs, number) for number in range(depth)]
    _distribute(tracer, outputs, moved)


@rule("aten::slice")
def cut_out(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Halves of the channels stay equal."""
    move(tracer, func, args, kwargs, outputs)
    bound = bind(func, args, kwargs)
    dim, start = bound["dim"], bound["start"] or 0
    length = outputs.shape[dim]
    if start in (0, length) and args[0].shape[dim] == 2 * length:
        _keep_parts_equal(tracer, args[0], dim, length)


@rule("aten::split", "aten::split_with_sizes", "aten::chunk", "aten::unsafe_split")
def split(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    move(tracer, func, args, kwargs, outputs)
    dim = bind(func, args, kwargs)["dim"]
    if len({output.shape[dim] for output in outputs}) == 1:
        _keep_parts_equal(tracer, args[0], dim, outputs[0].shape[dim])


def _keep_parts_equal(tracer: Tracer, whole: Tensor, dim: int, length: int) -> None:
    dim %= whole.ndim
    for ids in tracer.maps_of(whole):
        if length and varies(ids, dim) and ids.shape[dim] % length == 0 and not tracer.owns(ids):
            rows = ids.movedim(dim, -1)
            tracer.space.keep_rectangular(rows.reshape(*rows.shape[:-1], -1, length))


@rule("aten::stack")
def stack(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """The stacked tensors must stay equally wide."""
    move(tracer, func, args, kwargs, outputs)
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % outputs.ndim
    for ids in tracer.maps_of(outputs):
        tracer.space.keep_rectangular(ids.movedim(dim, 0))


@rule("aten::index", "aten::index_select", "aten::embedding", "aten::gather", "aten::_unsafe_index")
def index(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Picking by position. The rows of a parameter that is looked up are no channels."""
    table, dims = args[0], _picked_dims(func, args)
    maps, kept = tracer.maps_of(table), []
    for ids, wide in zip(maps, tracer.wide_maps(table), strict=True):
        if len(maps) > 1 and any(varies(ids, dim) for dim in dims):
            tracer.freeze([ids], "looked up by position")
        else:
            kept.append(func(wide, *args[1:], **kwargs))
    tracer.set_maps(outputs, kept)


def _picked_dims(func: Any, args: tuple) -> set[int]:
    if isinstance(args[1], (list, tuple)):
        return {dim for dim, positions in enumerate(args[1]) if positions is not None}
    return {0} if func._schema.name == "aten::embedding" else {args[1] % args[0].ndim}


@rule("aten::view_as_real")
def view_as_real(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    tracer.set_maps(outputs, [ids.unsqueeze(-1) for ids in tracer.maps_of(args[0])])


@rule("aten::view_as_complex")
def view_as_complex(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Real and imaginary part are one number of one channel."""
    maps = []
    for ids in tracer.maps_of(args[0]):
        tracer.space.tie(ids[..., 0], ids[..., -1])
        maps.append(ids[..., 0])
    tracer.set_maps(outputs, maps)


@rule("aten::roll", "aten::flip")
def turn(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    dims = bind(func, args, kwargs)["dims"]
    if split_by_variation(tracer.maps_of(args[0]), *dims)[0] or not dims:
        return move(tracer, func, args, kwargs, outputs)
    tracer.set_maps(outputs, tracer.maps_of(args[0]))


@rule(
    "aten::reflection_pad1d", "aten::reflection_pad2d", "aten::reflection_pad3d",
    "aten::replication_pad1d", "aten::replication_pad2d", "aten::replication_pad3d",
)  # fmt: skip
def mirror(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    padded = range(args[0].ndim - len(args[1]) // 2, args[0].ndim)
    if split_by_variation(tracer.maps_of(args[0]), *padded)[0]:
        return move(tracer, func, args, kwargs, outputs)
    tracer.set_maps(outputs, tracer.maps_of(args[0]))


@rule("aten::im2col")
def unfold(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """`(N, C, H, W)` to `(N, C k k, L)`: a channel's pixels, padding included, are its own."""
    image = args[0]
    if split_by_variation(tracer.maps_of(image), -1, -2)[0]:
        return move(tracer, func, args, kwargs, outputs)
    parts = outputs.shape[-2] // image.shape[-3]
    maps = []
    for ids in tracer.maps_of(image):
        channels = ids.squeeze(-1)
        wide = channels.expand(*channels.shape[:-2], image.shape[-3], 1)
        maps.append(wide.repeat_interleave(parts, dim=-2))
    tracer.set_maps(outputs, maps)


@rule("aten::as_strided_")
def restride(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Pooling to one pixel restrides its result; other uses may rearrange elements."""
    maps = tracer.maps_of(args[0])
    if any(ids.ndim != outputs.ndim for ids in maps) or outputs.shape[2:].numel() != 1:
        tracer.freeze(maps, "rearranged by aten.as_strided_")


@rule("aten::constant_pad_nd")
def pad(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Zeros beside a channel's pixels are its own; zeros beside channels belong to none."""
    amounts = args[1]
    moved = []
    for ids in tracer.maps_of(args[0]):
        own = list(amounts)
        for back in range(len(amounts) // 2):
            if not varies(ids, ids.ndim - 1 - back):
                own[2 * back : 2 * back + 2] = [0, 0]
        moved.append(func(ids, own, NO_CHANNEL) if any(own) else ids)
    tracer.set_maps(outputs, moved)


@rule("aten::view", "aten::_unsafe_view", "aten::reshape", "aten::_reshape_alias")
def reshape(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Views of broadcast ids may need a copy, which `reshape` makes."""
    if args[1:] and not isinstance(args[1], (list, tuple)):
        return same(tracer, func, args, kwargs, outputs)  # view(dtype)
    before = [len(varying_dims(ids)) for ids in tracer.maps_of(args[0])]
    maps = [ids.reshape(outputs.shape) for ids in tracer.wide_maps(args[0])]
    maps = [ids if tracer.owns(ids) else compact(ids) for ids in maps]
    for ids, wide, dims in zip(maps, tracer.maps_of(args[0]), before, strict=True):
        if len(varying_dims(ids)) > dims:
            tracer.space.keep_rectangular(ids)
        elif len(varying_dims(ids)) < dims:
            _tie_interleaved(tracer, wide)
    tracer.set_maps(outputs, maps)


def _tie_interleaved(tracer: Tracer, ids: Tensor) -> None:
    """Rows that a flattening interleaves, as a channel shuffle does, lose the same columns."""
    dims = sorted(varying_dims(ids))
    for outer, inner in itertools.pairwise(dims):
        if tracer.space.loses_along(ids, outer) and not tracer.space.loses_along(ids, inner):
            tracer.space.tie(ids.narrow(inner, 0, 1), ids)


@rule(
    "aten::clone", "aten::alias", "aten::detach", "aten::contiguous", "aten::_to_copy",
    "aten::lift_fresh", "aten::lift", "aten::to", "aten::lift_fresh_copy", "aten::_conj",
    "aten::_neg_view", "aten::resolve_conj", "aten::conj_physical", "aten::_conj_physical",
)  # fmt: skip
def same(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    copies = outputs.data_ptr() != args[0].data_ptr()
    maps = [
        tracer.own(ids.clone()) if copies and tracer.owns(ids) else ids
        for ids in tracer.maps_of(args[0])
    ]
    tracer.set_maps(outputs, maps)


def _apply(tracer: Tracer, func: Any, args: tuple, kwargs: dict, number: int) -> Any:
    """Run the op on the id map of this number of every tensor that carries channels."""

    def ids_of(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or (not leaf.is_floating_point() and not leaf.is_complex()):
            return leaf  # an index tensor stays what it is
        maps = tracer.wide_maps(leaf)
        if number < len(maps):
            return maps[number]
        return torch.zeros((), dtype=torch.int64).expand(leaf.shape)

    args, kwargs = tree_map(ids_of, (args, kwargs))
    try:
        return func(*args, **kwargs)
    except (NotImplementedError, RuntimeError):  # some kernels know no integers
        args, kwargs = tree_map(_as_float, (args, kwargs))
        return tree_map(_as_int, func(*args, **kwargs))


def _as_float(leaf: Any) -> Any:
    """Ids as float64, which holds integers exactly up to 2**53."""
    return leaf.double() if isinstance(leaf, Tensor) and leaf.dtype == torch.int64 else leaf


def _as_int(leaf: Any) -> Any:
    return leaf.long() if isinstance(leaf, Tensor) else leaf


def _distribute(tracer: Tracer, outputs: Any, moved: list[Any]) -> None:
    if isinstance(outputs, Tensor):
        tracer.set_maps(outputs, moved)
        return
    for index, output in enumerate(outputs):
        tracer.set_maps(output, [pieces[index] for pieces in moved])

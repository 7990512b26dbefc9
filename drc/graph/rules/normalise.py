"""Normalisation: per channel it passes channels on; across channels it freezes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from drc.graph.ids import varies
from drc.graph.rules.common import along, place
from drc.graph.tracer import Tracer, rule


@rule(
    "aten::native_batch_norm", "aten::_native_batch_norm_legit",
    "aten::_native_batch_norm_legit_no_training", "aten::cudnn_batch_norm",
    "aten::_native_batch_norm_legit_functional", "aten::_batch_norm_no_update",
    "aten::_batch_norm_with_update",
)  # fmt: skip
def batch_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    image = args[0]
    layers = []
    for ids in tracer.layers(image):
        channels = along(tracer, ids, 1)
        for tensor in args[1:5]:
            for own in tracer.layers(tensor):
                tracer.space.tie(channels, own)
        layers.append(place(channels, 1, image.shape))
    tracer.set_layers(outputs[0], layers)


@rule("aten::native_layer_norm", "aten::_fused_rms_norm", "aten::rms_norm")
def layer_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    image, shape = args[0], args[1]
    _freeze_mixed(tracer, func, args, outputs, range(image.ndim - len(shape), image.ndim))


@rule("aten::native_group_norm")
def group_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    _freeze_mixed(tracer, func, args, outputs, range(1, args[0].ndim))


def _freeze_mixed(tracer: Tracer, func: Any, args: tuple, outputs: Any, dims: range) -> None:
    """Statistics over several channels change when one is removed, so all of them stay."""
    image = args[0]
    why = f"normalised over by {func._schema.name.replace('::', '.')}"
    tracer.freeze([i for i in tracer.layers(image) if any(varies(i, d) for d in dims)], why)
    for tensor in args[1:]:
        if isinstance(tensor, Tensor):
            tracer.freeze(tracer.layers(tensor), why)
    tracer.set_layers(outputs[0] if isinstance(outputs, tuple) else outputs, tracer.layers(image))

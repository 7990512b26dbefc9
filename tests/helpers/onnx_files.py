"""Small networks as ONNX files: a convolution and a pixel shuffle, equal to a module of torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from drc.data.images import to_uint8, to_unit
from drc.networks.traits import Traits, set_traits


class ConvShuffle(nn.Module):
    """x2: a 5x5 convolution and a pixel shuffle around an enlargement by repetition."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 5, padding=2)
        nn.init.normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x) + x.repeat_interleave(4, 1), 2)


class Folded(nn.Module):
    """x2, on even sides alone: works on a quarter of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 48, 3, padding=1)
        set_traits(self, Traits(scale=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near = F.interpolate(x, scale_factor=2)
        return near + F.pixel_shuffle(self.conv(F.pixel_unshuffle(x, 2)), 4) / 9


def on_extended(network: nn.Module, image: torch.Tensor, multiple: int) -> np.ndarray:
    """What torch makes of an image that is extended by its edge pixels, cut to its size."""
    height, width = image.shape[1:]
    pads = [(0, 0), (0, -height % multiple), (0, -width % multiple)]
    padded = torch.from_numpy(np.pad(to_unit(image).numpy(), pads, "edge"))
    with torch.no_grad():
        sr = network(padded[None])[0, :, : 2 * height, : 2 * width]
    return to_uint8(sr).permute(1, 2, 0).int().numpy()


def write_onnx(
    path: Path,
    network: ConvShuffle,
    size: tuple[Any, Any] = ("h", "w"),
    metadata: dict[str, str] | None = None,
    white: float = 1.0,
    half: bool = False,
) -> Path:
    """Write the network, for images of one size or of any, in 0..`white`."""
    weight, bias = (p.detach().numpy().copy() for p in (network.conv.weight, network.conv.bias))
    count = weight.shape[1]
    for channel in range(count):
        weight[4 * channel : 4 * channel + 4, channel, 2, 2] += 1  # what repetition adds
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    nodes = [
        helper.make_node("Conv", ["lr", "weight", "bias"], ["features"], pads=[2, 2, 2, 2]),
        helper.make_node("DepthToSpace", ["features"], ["sr"], blocksize=2, mode="CRD"),
    ]
    arrays = {"weight": weight, "bias": bias * white}
    graph = helper.make_graph(
        nodes, "conv_shuffle",
        [helper.make_tensor_value_info("lr", kind, [1, count, *size])],
        [helper.make_tensor_value_info("sr", kind, None)],
        [numpy_helper.from_array(array.astype(dtype), name) for name, array in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path

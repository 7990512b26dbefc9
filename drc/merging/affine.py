"""Convolutions as plain linear maps, and the algebra that makes one of several."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

Pair = tuple[int, int]
Border = Literal["zeros", "reflect", "replicate", "circular"]


@dataclass(frozen=True)
class Conv:
    """A 2d convolution; also what works on each channel alone, as one of a single tap.

    Attributes:
        weight: `(outputs, inputs / groups, kh, kw)`, float64.
        bias: `(outputs,)`, float64.
        stride, padding, dilation: (vertical, horizontal), in pixels.
        groups: of its channels.
        border: how the image goes on where it is padded: a padding mode of torch.
    """

    weight: Tensor
    bias: Tensor
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    border: Border = "zeros"

    @property
    def kernel(self) -> Pair:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1] * self.groups

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def one_tap(self) -> bool:
        """Whether a pixel of the output depends on one pixel of the image alone."""
        return self.kernel == (1, 1) and self.padding == (0, 0)

    def times(self, factor: float) -> Conv:
        """`factor * conv(x)`."""
        return replace(self, weight=self.weight * factor, bias=self.bias * factor)

    def dense(self) -> Tensor:
        """The weight of the same map without groups, `(outputs, inputs, kh, kw)`."""
        return torch.stack(
            [torch.block_diag(*tap.chunk(self.groups)) for tap in self.weight.flatten(2).unbind(2)],
            2,
        ).unflatten(2, self.kernel)

    def layer(self, like: Tensor) -> nn.Conv2d:
        """The convolution as a layer, of the number type and on the device of `like`."""
        made = nn.Conv2d(
            self.inputs, self.outputs, self.kernel, self.stride, self.padding, self.dilation,
            self.groups, padding_mode=self.border, device=like.device, dtype=like.dtype,
        )  # fmt: skip
        made.load_state_dict({"weight": self.weight, "bias": self.bias})
        return made.requires_grad_(like.requires_grad)


def per_channel(scale: Tensor, shift: Tensor) -> Conv:
    """`scale * x + shift`, both `(channels,)` in float64."""
    return Conv(scale.reshape(-1, 1, 1, 1), shift, groups=scale.numel())


def identity(channels: int, like: Tensor) -> Conv:
    """`x`, of that many channels, on the device of `like`."""
    ones = like.new_ones(channels, dtype=torch.float64)
    return per_channel(ones, torch.zeros_like(ones))


def in_sequence(first: Conv, second: Conv) -> Conv | None:
    """One convolution equal to `second(first(x))`, or None.

    There is none where both have several taps, or where the second pads with zeros what the first
    makes something else of; none is wanted that costs more than the two.
    """
    if second.one_tap:
        wide = first
    elif first.one_tap and first.stride == (1, 1) and _keeps_border(first, second):
        wide = second
    else:
        return None
    before, after = first.dense(), second.dense()
    weight = torch.einsum("omab,mcde->ocadbe", after, before)
    merged = Conv(
        _grouped(weight.flatten(4).flatten(2, 3), math.gcd(first.groups, second.groups)),
        after.sum((2, 3)) @ first.bias + second.bias,
        stride=(first.stride[0] * second.stride[0], first.stride[1] * second.stride[1]),
        padding=wide.padding,
        dilation=wide.dilation,
        groups=math.gcd(first.groups, second.groups),
        border=wide.border,
    )
    # Multiply-adds for one pixel of the output.
    apart = first.weight.numel() * math.prod(second.stride) + second.weight.numel()
    return merged if merged.weight.numel() <= apart else None


def side_by_side(first: Conv, second: Conv) -> Conv | None:
    """One convolution equal to `first(x) + second(x)`, or None.

    There is none where their outputs differ in size or their taps lie on different grids; none is
    wanted that costs more than the two.
    """
    ends = [(conv.inputs, conv.outputs, conv.stride) for conv in (first, second)]
    borders = {conv.border for conv in (first, second) if conv.padding != (0, 0)}
    rows, columns = _grid(first, second, 0), _grid(first, second, 1)
    if ends[0] != ends[1] or len(borders) > 1 or rows is None or columns is None:
        return None
    wide = Conv(
        first.weight.new_zeros(first.outputs, first.inputs, rows[0], columns[0]),
        first.bias + second.bias,
        stride=first.stride,
        padding=(rows[1], columns[1]),
        dilation=(rows[2], columns[2]),
        border=next(iter(borders), "zeros"),
    )
    for conv in (first, second):
        down, across = _taps(conv, wide, 0), _taps(conv, wide, 1)
        wide.weight[:, :, down[:, None], across] += conv.dense()
    groups = math.gcd(first.groups, second.groups)
    merged = replace(wide, weight=_grouped(wide.weight, groups), groups=groups)
    apart = first.weight.numel() + second.weight.numel()
    return merged if merged.weight.numel() <= apart else None


def _keeps_border(first: Conv, second: Conv) -> bool:
    """Whether the second finds beyond the border what the first would have made of it."""
    return second.padding == (0, 0) or second.border != "zeros" or not bool(first.bias.any())


def _grid(first: Conv, second: Conv, axis: int) -> tuple[int, int, int] | None:
    """Along an axis, the kernel, padding and dilation that has room for the taps of both."""
    both = (first, second)
    reach = [conv.dilation[axis] * (conv.kernel[axis] - 1) for conv in both]
    pads = [conv.padding[axis] for conv in both]
    step = math.gcd(*(conv.dilation[axis] for conv in both if conv.kernel[axis] > 1)) or 1
    # Outputs of one size need taps around one centre, and their distance must fit the grid.
    same_size = 2 * pads[0] - reach[0] == 2 * pads[1] - reach[1]
    if not same_size or (pads[0] - pads[1]) % step:
        return None
    return max(reach) // step + 1, max(pads), step


def _taps(conv: Conv, wide: Conv, axis: int) -> Tensor:
    """Where the taps of `conv` lie among those of `wide`, along an axis."""
    taps = torch.arange(conv.kernel[axis], device=conv.weight.device) * conv.dilation[axis]
    return (taps + wide.padding[axis] - conv.padding[axis]) // wide.dilation[axis]


def _grouped(weight: Tensor, groups: int) -> Tensor:
    """The blocks on the diagonal of a weight without groups, as the weight of one with them."""
    rows = weight.chunk(groups, 0)
    return torch.cat([row.chunk(groups, 1)[number] for number, row in enumerate(rows)])

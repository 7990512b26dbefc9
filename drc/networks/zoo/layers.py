"""Layers that several of the registered networks are made of, under the names of their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from drc.core.errors import UsageError

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Of DIV2K, per channel, in 0..1."""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the image's size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class MeanShift(nn.Conv2d):
    """Fixed 1x1 convolution that adds `sign * value_range * mean` to an RGB image."""

    def __init__(self, value_range: float, sign: int) -> None:
        super().__init__(3, 3, 1)
        assert self.bias is not None
        with torch.no_grad():
            self.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            self.bias.copy_(sign * value_range * torch.tensor(RGB_MEAN))
        self.requires_grad_(False)


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation, as in RCAN; `width` channels are left in between."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(self.avg_pool(x))


class Residual(nn.Module):
    """`x + factor * body(x)`, around layers that keep the shape."""

    def __init__(self, *layers: nn.Module, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.body(x), alpha=self.factor)


def attention_block(channels: int, width: int, squeezed: int) -> Residual:
    """Residual channel-attention block of RCAN and DRN: `width` channels between its convolutions,
    `squeezed` inside the attention."""
    return Residual(
        conv3x3(channels, width),
        nn.ReLU(inplace=True),
        conv3x3(width, channels),
        ChannelAttention(channels, squeezed),
    )


class HeadBodyTail(nn.Module):
    """The frame of EDSR and RCAN: head convolution, body around a skip, upsampling tail.

    Input: `(N, 3, H, W)`, values 0..`value_range`, any size. Output: the SR image,
    `(N, 3, H * scale, W * scale)`.

    Args:
        blocks: the body, up to its last convolution; they keep `n_feats` channels.
        n_feats: channels between the blocks.
        scale: a power of two, or 3.
        value_range: the largest pixel value.

    Raises:
        UsageError: another scale.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], n_feats: int, scale: int, value_range: float
    ) -> None:
        super().__init__()
        self.scale, self.value_range = scale, float(value_range)
        self.sub_mean = MeanShift(value_range, -1)
        self.add_mean = MeanShift(value_range, 1)
        self.head = nn.Sequential(conv3x3(3, n_feats))
        self.body = nn.Sequential(*blocks, conv3x3(n_feats, n_feats))
        self.tail = shuffle_tail(scale, n_feats)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(x + self.body(x)))


def shuffle_tail(scale: int, channels: int) -> nn.Sequential:
    """From features at LR size to an RGB image; see `shuffle_steps`."""
    return nn.Sequential(nn.Sequential(*shuffle_steps(scale, channels)), conv3x3(channels, 3))


def shuffle_steps(scale: int, channels: int) -> list[nn.Module]:
    """Convolution and PixelShuffle in steps of 2 (a power of two) or one step of 3.

    Raises:
        UsageError: another scale.
    """
    steps = [3] if scale == 3 else [2] * int(math.log2(max(scale, 1)))
    if math.prod(steps) != scale or scale < 2:
        raise UsageError(f"this network upsamples by 2, 3, 4 or 8, not by {scale}")
    return [
        layer
        for step in steps
        for layer in (conv3x3(channels, step**2 * channels), nn.PixelShuffle(step))
    ]


def check_widths(widths: Sequence[int] | None, dense: Sequence[int]) -> list[int]:
    """Return `widths`, or `dense` for None.

    Raises:
        UsageError: the list has another length, or an entry is outside 1..dense.
    """
    if widths is None:
        return list(dense)
    if len(widths) != len(dense):
        raise UsageError(f"this network takes {len(dense)} widths, got {len(widths)}")
    for index, (width, full) in enumerate(zip(widths, dense, strict=True)):
        if not 1 <= width <= full:
            raise UsageError(f"width {index} is {width}; this layer takes 1 to {full}")
    return [int(width) for width in widths]

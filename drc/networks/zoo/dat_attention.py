"""The two attentions of DAT: between pixels of windows, and between channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.networks.zoo.transformer import (
    Size,
    attend,
    from_windows,
    offsets,
    relative_index,
    shift_mask,
    to_windows,
)

Masks = tuple[Tensor, Tensor]
"""Of one image size: for the wide windows and for the tall ones."""


class PositionBias(nn.Module):
    """A small network from an offset between tokens to a bias for every head.

    Args:
        channels: of the attention it is for.
        heads: of that attention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        width = channels // 16
        self.pos_proj = nn.Linear(2, width)
        self.pos1 = self._step(width, width)
        self.pos2 = self._step(width, width)
        self.pos3 = self._step(width, heads)

    @staticmethod
    def _step(width: int, outputs: int) -> nn.Sequential:
        norm = nn.LayerNorm(width)
        return nn.Sequential(norm, nn.ReLU(inplace=True), nn.Linear(width, outputs))

    def forward(self, offset: Tensor) -> Tensor:
        """`(offsets, 2)` to `(offsets, heads)`."""
        return self.pos3(self.pos2(self.pos1(self.pos_proj(offset))))


class WindowBranch(nn.Module):
    """Attention in windows of one shape, for half of the channels.

    Args:
        channels: of that half.
        heads: its heads.
        window: height and width of the windows.
        shifted: attend in windows moved by half a window.
    """

    rpe_biases: Tensor
    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: Size, shifted: bool) -> None:
        super().__init__()
        self.heads, self.window, self.shifted = heads, window, shifted
        self.scale = (channels // heads) ** -0.5
        self.register_buffer("rpe_biases", offsets(window))
        self.register_buffer("relative_position_index", relative_index(window))
        self.pos = PositionBias(channels, heads)

    def forward(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """`(N, H, W, 3 channels)` to `(N, H, W, channels)`."""
        height, width = qkv.shape[1:3]
        qkv = F.pad(qkv, (0, 0, 0, -width % max(self.window), 0, -height % max(self.window)))
        size, (down, right) = (qkv.shape[1], qkv.shape[2]), self._shift()
        tokens = to_windows(qkv.roll((-down, -right), (1, 2)), self.window)
        # The width of a head is left open, so that heads can be cut.
        q, k, v = tokens.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.pos(self.rpe_biases)[self.relative_position_index].permute(2, 0, 1)
        mixed = from_windows(attend(q * self.scale, k, v, bias, mask), self.window, size)
        return mixed.roll((down, right), (1, 2))[:, :height, :width]

    def _shift(self) -> Size:
        return (self.window[0] // 2, self.window[1] // 2) if self.shifted else (0, 0)


class Attention(nn.Module):
    """What both kinds of attention have in common: a convolution beside it, and their interaction.

    Args:
        channels: of the tokens.
        branches: attentions for parts of the channels.
    """

    def __init__(self, channels: int, branches: Sequence[WindowBranch] = ()) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        if branches:
            self.attns = nn.ModuleList(branches)
        self.dwconv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.GELU(),
        )
        self.channel_interaction = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), *_squeeze(channels, channels // 8, channels)
        )
        self.spatial_interaction = nn.Sequential(*_squeeze(channels, channels // 16, 1))

    def joined(self, attended: Tensor, conv: Tensor, attention_leads: bool) -> Tensor:
        """Let each of two images `(N, C, H, W)` gate the other, add them and project the tokens.

        Args:
            attended: what the attention gives.
            conv: what the convolution gives.
            attention_leads: the channels are gated by the attention and the pixels by the
                convolution, not the other way round.
        """
        leading, other = (attended, conv) if attention_leads else (conv, attended)
        channels = self.channel_interaction(leading).sigmoid()
        pixels = self.spatial_interaction(other).sigmoid()
        return self.proj((other * channels + leading * pixels).permute(0, 2, 3, 1))


def _squeeze(channels: int, width: int, outputs: int) -> list[nn.Module]:
    """1x1 convolutions through a narrow layer."""
    return [
        nn.Conv2d(channels, width, 1),
        nn.BatchNorm2d(width),
        nn.GELU(),
        nn.Conv2d(width, outputs, 1),
    ]


class SpatialAttention(Attention):
    """Attention in wide windows for half of the channels and in tall ones for the others.

    Args:
        channels: of the tokens.
        heads: of both halves together.
        split: height and width of the wide windows; the tall ones have them exchanged.
        shifted: attend in windows moved by half a window.
        img_size: side of the image for which masks are stored.
    """

    attn_mask_0: Tensor | None
    attn_mask_1: Tensor | None

    def __init__(
        self, channels: int, heads: int, split: Size, shifted: bool, img_size: int
    ) -> None:
        windows = (split, (split[1], split[0]))
        branches = [WindowBranch(channels // 2, heads // 2, w, shifted) for w in windows]
        super().__init__(channels, branches)
        self.shifted, self.heads = shifted, heads // 2
        for number, window in enumerate(windows):
            mask = shift_mask((img_size, img_size), window) if shifted else None
            self.register_buffer(f"attn_mask_{number}", mask)

    def forward(self, x: Tensor, masks: Masks | None) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (3, 2, self.heads, -1))
        wide, tall = masks if self.shifted and masks else (self.attn_mask_0, self.attn_mask_1)
        halves = [
            branch(parts[..., number, :, :].flatten(-3), mask)
            for number, (branch, mask) in enumerate(zip(self.attns, (wide, tall), strict=True))
        ]
        attended = torch.cat(halves, -1).permute(0, 3, 1, 2)
        value = parts[..., 2, :, :, :].flatten(-3).permute(0, 3, 1, 2)
        return self.joined(attended, self.dwconv(value), attention_leads=False)


class ChannelAttention(Attention):
    """Attention between the channels of a head, over all pixels.

    Args:
        channels: of the tokens.
        heads: number of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels)
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor, masks: Masks | None) -> Tensor:
        """`masks` is for the other kind."""
        height, width = x.shape[1:3]
        qkv = self.qkv(x).flatten(1, 2).transpose(1, 2).unflatten(1, (3, self.heads, -1))
        q, k, v = qkv.unbind(1)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        mixed = (scores * self.temperature).softmax(-1) @ v
        attended, value = (t.flatten(1, 2).unflatten(-1, (height, width)) for t in (mixed, v))
        return self.joined(attended, self.dwconv(value), attention_leads=True)

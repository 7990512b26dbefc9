"""DAT, the dual aggregation transformer (Chen et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import UsageError
from drc.networks.dual import ChainDual
from drc.networks.registry import Preset, register
from drc.networks.zoo.layers import conv3x3
from drc.networks.zoo.transformer import (
    Size,
    TransformerSR,
    attend,
    check_windows,
    from_windows,
    offsets,
    relative_index,
    shift_mask,
    to_windows,
)

Masks = tuple[Tensor, Tensor]
"""Of one image size: for the wide windows and for the tall ones."""


class PositionBias(nn.Module):
    """A small network from an offset between tokens to a bias for every head."""

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
    """Attention in windows of one shape, for half of the channels; `heads` are those of that half.

    Where it is `shifted` the windows are moved by half a window.
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

    `branches` are attentions for parts of the channels.
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

        Where the attention leads, it gates the channels and the convolution the pixels; else the
        other way round.
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

    `heads` are those of both halves, `split` is the height and width of the wide windows.
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
    """Attention between the channels of a head, over all pixels."""

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


class SpatialGate(nn.Module):
    """Multiply one half of the channels with the other, normalised and convolved depthwise."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        kept, gate = x.unflatten(-1, (2, -1)).unbind(-2)
        return kept * self.conv(self.norm(gate).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class FeedForward(nn.Module):
    """Linear, GELU, spatial gate, linear; `width` is the number of channels before the gate."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, width)
        self.sg = SpatialGate(width // 2)
        self.fc2 = nn.Linear(width // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.sg(F.gelu(self.fc1(x))))


class Block(nn.Module):
    """Attention and feed-forward, each behind a layer norm and around a skip, on `(N, H, W, C)`."""

    def __init__(self, channels: int, attention: Attention, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = attention
        self.ffn = FeedForward(channels, width)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, masks: Masks | None) -> Tensor:
        x = x + self.attn(self.norm1(x), masks)
        return x + self.ffn(self.norm2(x))


class ResidualGroup(nn.Module):
    """Blocks and a 3x3 convolution around a skip, on `(N, H, W, C)`."""

    def __init__(self, channels: int, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor, masks: Masks | None) -> Tensor:
        inner = x
        for block in self.blocks:
            inner = block(inner, masks)
        return x + self.conv(inner.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class DAT(TransformerSR):
    """Transformer SR network whose blocks attend in turn between pixels and between channels.

    Input: `(N, 3, H, W)` of any size, values 0..1. Output: `(N, 3, H * scale, W * scale)`. As in
    the published code the image is not padded: only the queries, keys and values of a window
    attention are, by zeros to multiples of the longer side of the windows.
    The published stochastic depth of training is left out; it plays no part afterwards.

    Args:
        depth: blocks per residual group; those with an even number attend between pixels.
        embed_dim: channels.
        num_heads: heads of every attention.
        expansion_factor: channels before the gate of the feed-forward over `embed_dim`.
        split_size: height and width of the wide windows; the tall ones have them exchanged.
        scale: 2, 3, 4 or 8.
        img_size: side of the images for which the checkpoint holds masks.

    Raises:
        UsageError: another scale, windows that do not fill `img_size`, or channels that cannot be
            divided into two halves of as many heads.
    """

    def __init__(
        self,
        depth: Sequence[int],
        embed_dim: int,
        num_heads: int = 6,
        expansion_factor: int = 4,
        split_size: Size = (8, 32),
        scale: int = 4,
        img_size: int = 64,
    ) -> None:
        check_windows(img_size, split_size)
        if num_heads < 2 or num_heads % 2 or embed_dim % num_heads or embed_dim < 32:
            raise UsageError(
                f"DAT cannot divide {embed_dim} channels among {num_heads} heads; use an even "
                "number of heads and a multiple of it, at least 32, for the channels"
            )
        super().__init__(scale, embed_dim)
        self.split_size, self.img_size = split_size, img_size
        self.before_RG = nn.ModuleDict({"1": nn.LayerNorm(embed_dim)})
        self.layers = nn.ModuleList()
        for group, blocks in enumerate(depth):
            attentions = [
                ChannelAttention(embed_dim, num_heads)
                if number % 2
                else SpatialAttention(
                    embed_dim, num_heads, split_size, _is_shifted(group, number), img_size
                )
                for number in range(blocks)
            ]
            width = expansion_factor * embed_dim
            self.layers.append(
                ResidualGroup(embed_dim, [Block(embed_dim, a, width) for a in attentions])
            )
        self.add_end(embed_dim)

    def body(self, x: Tensor) -> Tensor:
        masks = self._masks(x)
        x = self.before_RG["1"](x)
        for layer in self.layers:
            x = layer(x, masks)
        return x

    def _masks(self, x: Tensor) -> Masks | None:
        """One pair for all blocks, of an image size for which none are stored."""
        longer = max(self.split_size)
        size = (x.shape[1] + -x.shape[1] % longer, x.shape[2] + -x.shape[2] % longer)
        if size == (self.img_size, self.img_size):
            return None
        wide, tall = self.split_size, (self.split_size[1], self.split_size[0])
        return (
            shift_mask(size, wide, x.device, x.dtype),
            shift_mask(size, tall, x.device, x.dtype),
        )


def _is_shifted(group: int, block: int) -> bool:
    """Every second window attention is: the first of odd groups, the second of even ones."""
    return block % 4 == (0 if group % 2 else 2)


# The authors publish the weights for x2, x3 and x4 on Google Drive, which gives no plain URL.
register(
    Preset(
        name="dat",
        build=DAT,
        arguments={scale: {"depth": [6] * 6, "embed_dim": 180} for scale in (2, 3, 4)},
        value_range=1.0,
        dual=ChainDual,
    )
)

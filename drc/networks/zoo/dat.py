"""DAT, the dual aggregation transformer (Chen et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import UsageError
from drc.networks.dual import ChainDual
from drc.networks.registry import Preset, register
from drc.networks.zoo.dat_attention import Attention, ChannelAttention, Masks, SpatialAttention
from drc.networks.zoo.layers import conv3x3
from drc.networks.zoo.transformer import Size, TransformerSR, check_windows, shift_mask


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


def _register_presets() -> None:
    # The authors publish the weights for x2, x3 and x4 on Google Drive, which gives no plain URL.
    arguments = {"depth": [6] * 6, "embed_dim": 180}
    register(
        Preset(
            name="dat",
            build=DAT,
            arguments=dict.fromkeys((2, 3, 4), arguments),
            value_range=1.0,
            dual=ChainDual,
        )
    )


_register_presets()

"""SwinIR (Liang et al., ICCVW 2021), classical and light, and light with compressed widths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import ModelError, UsageError
from drc.networks.dual import ChainDual
from drc.networks.registry import Preset, WeightsFile, published_widths, register
from drc.networks.zoo.layers import check_widths, conv3x3
from drc.networks.zoo.transformer import (
    TransformerSR,
    attend,
    check_windows,
    from_windows,
    relative_index,
    shift_mask,
    to_windows,
)

_RELEASE = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/"
_UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect")


class WindowAttention(nn.Module):
    """Attention of all tokens of a window, `(N windows, tokens, channels)`; same shape out.

    `width` is the inner one over all heads; queries are scaled as if it were `channels`.
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        table = torch.empty((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("relative_position_index", relative_index((window, window)))
        self.qkv = nn.Linear(channels, 3 * width)
        self.proj = nn.Linear(width, channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        # The width of a head is left open, so that heads can be cut.
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.relative_position_index]
        return self.proj(attend(q * self.scale, k, v, bias.permute(2, 0, 1), mask))


class Mlp(nn.Module):
    """Linear, GELU, linear; `width` is the number of hidden channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, width)
        self.fc2 = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and around a skip, on `(N, H, W, channels)`.

    `widths` are those of the attention and of the MLP, `window` is the side of the windows, and
    `img_size` that of the image for which a mask is stored.
    """

    attn_mask: Tensor | None

    def __init__(
        self,
        channels: int,
        widths: tuple[int, int],
        heads: int,
        window: int,
        shifted: bool,
        img_size: int,
    ) -> None:
        super().__init__()
        self.window, self.shift = (window, window), window // 2 if shifted else 0
        mask = shift_mask((img_size, img_size), self.window) if shifted else None
        self.register_buffer("attn_mask", mask)
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, widths[0], heads, window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, widths[1])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` is that of this image size; None for the stored one."""
        x = x + self._attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))

    def _attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        size = (x.shape[1], x.shape[2])
        if not self.shift:
            return from_windows(self.attn(to_windows(x, self.window)), self.window, size)
        tokens = to_windows(x.roll((-self.shift, -self.shift), (1, 2)), self.window)
        tokens = self.attn(tokens, self.attn_mask if mask is None else mask)
        return from_windows(tokens, self.window, size).roll((self.shift, self.shift), (1, 2))


class BlockList(nn.Module):
    """Transformer blocks one after the other."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class Layer(nn.Module):
    """Transformer blocks and a 3x3 convolution around a skip, on `(N, H, W, channels)`."""

    def __init__(self, channels: int, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.residual_group = BlockList(blocks)
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        inner = self.residual_group(x, mask).permute(0, 3, 1, 2)
        return self.conv(inner).permute(0, 2, 3, 1) + x


class SwinIR(TransformerSR):
    """Transformer SR network with attention in shifted windows.

    Input: `(N, 3, H, W)`, values 0..1. Output: `(N, 3, H * scale, W * scale)`. Images are padded
    to whole windows by reflection at the bottom and on the right, and the output is cropped.
    The published stochastic depth of training is left out; it plays no part afterwards.

    Args:
        depths: transformer blocks per layer.
        embed_dim: channels.
        num_heads: heads of every attention.
        upsampler: `pixelshuffle` (classical) or `pixelshuffledirect` (light: one convolution).
        scale: 2, 3, 4 or 8; any from 2 on for `pixelshuffledirect`.
        widths: the compressed widths in the published order: per transformer block the inner
            width of its attention over all heads and the hidden width of its MLP. None for the
            dense network.
        mlp_ratio: hidden width of the dense MLPs over `embed_dim`.
        window_size: side of the windows.
        img_size: side of the images for which the checkpoint holds masks.

    Raises:
        UsageError: another scale or upsampler, `embed_dim` or an attention's width that the heads
            do not divide, windows that do not fill `img_size`, or unusable widths.
    """

    def __init__(
        self,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: int = 6,
        upsampler: str = "pixelshuffle",
        scale: int = 4,
        widths: Sequence[int] | None = None,
        mlp_ratio: int = 2,
        window_size: int = 8,
        img_size: int = 64,
    ) -> None:
        if upsampler not in _UPSAMPLERS:
            raise UsageError(
                f"SwinIR has no upsampler {upsampler!r}; use {' or '.join(_UPSAMPLERS)}"
            )
        check_windows(img_size, (window_size, window_size))
        pairs = _pairs(widths, [embed_dim, mlp_ratio * embed_dim] * sum(depths), num_heads)
        super().__init__(scale, embed_dim)
        self.window_size, self.img_size = window_size, img_size
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed_dim)})
        self.layers = nn.ModuleList()
        for depth in depths:
            blocks = [
                Block(embed_dim, next(pairs), num_heads, window_size, index % 2 == 1, img_size)
                for index in range(depth)
            ]
            self.layers.append(Layer(embed_dim, blocks))
        self.add_end(embed_dim, direct=upsampler == "pixelshuffledirect")

    def padded(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        bottom, right = -height % self.window_size, -width % self.window_size
        if bottom >= height or right >= width:
            raise ModelError(
                f"an LR image of {height}x{width} pixels is too small for windows of "
                f"{self.window_size}; its sides must have more than {self.window_size // 2} pixels"
            )
        return F.pad(x, (0, right, 0, bottom), "reflect") if bottom or right else x

    def body(self, x: Tensor) -> Tensor:
        size, mask = (x.shape[1], x.shape[2]), None
        if size != (self.img_size, self.img_size):
            # One mask for all blocks, let go afterwards: keeping those of every size seen would
            # cost more memory than making one costs time.
            window = (self.window_size, self.window_size)
            mask = shift_mask(size, window, x.device, x.dtype)
        x = self.patch_embed["norm"](x)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def _pairs(
    widths: Sequence[int] | None, dense: Sequence[int], heads: int
) -> Iterator[tuple[int, int]]:
    """Widths of attention and MLP, block by block."""
    if heads < 1 or any(width % heads for width in dense[::2]):
        raise UsageError(f"{dense[0]} channels cannot be divided among {heads} heads")
    chosen = check_widths(widths, dense)
    for index, width in enumerate(chosen[::2]):
        if width % heads:
            raise UsageError(
                f"width {2 * index} is {width}; it is shared by {heads} heads, so give a "
                f"multiple of {heads}"
            )
    return iter(list(zip(chosen[::2], chosen[1::2], strict=True)))


def _register_presets() -> None:
    classical = {"depths": [6] * 6, "embed_dim": 180}
    light = {"depths": [6] * 4, "embed_dim": 60, "upsampler": "pixelshuffledirect"}
    for name, arguments, scales, file in (
        ("swinir", classical, (2, 3, 4, 8), "001_classicalSR_DF2K_s64w8_SwinIR-M"),
        ("swinir_light", light, (2, 3, 4), "002_lightweightSR_DIV2K_s64w8_SwinIR-S"),
    ):
        register(
            Preset(
                name=name,
                build=SwinIR,
                arguments=dict.fromkeys(scales, arguments),
                value_range=1.0,
                weights={s: WeightsFile(url=f"{_RELEASE}{file}_x{s}.pth") for s in scales},
                dual=ChainDual,
            )
        )
    register(
        Preset(
            name="swinir_light_drc",
            build=SwinIR,
            arguments={4: {**light, "widths": published_widths("swinir_light_drc_x4")}},
            value_range=1.0,
            dual=ChainDual,
        )
    )


_register_presets()

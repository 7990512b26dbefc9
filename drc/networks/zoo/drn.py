"""DRN, the dual regression network (Guo et al., CVPR 2020), dense and with compressed widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import UsageError
from drc.networks.dual import DownStep
from drc.networks.registry import Preset, WeightsFile, published_widths, register
from drc.networks.zoo.layers import MeanShift, attention_block, check_widths, conv3x3

_RELEASE = "https://github.com/guoyongcs/DRN/releases/download/v0.1/"
_PRUNED_RELEASE = "https://github.com/guoyongcs/DRC/releases/download/v1.1/"


class DRN(nn.Module):
    """U-shaped SR network with one SR image per pyramid level.

    Input: `(N, 3, H, W)`, values 0..`value_range`. Output: a list of `log2(scale) + 1` tensors,
    coarse to fine, `(N, 3, H * 2**i, W * 2**i)`; the last is the SR image.

    Args:
        n_resblocks: residual blocks per level.
        n_feats: channels at HR resolution; they double with every 2x step down.
        scale: a power of two, at least 2.
        widths: the compressed widths in the published order: the inner width of each down step,
            then for each level its residual blocks and its upsampler. None for the dense network.
        value_range: the largest pixel value.

    Raises:
        UsageError: a scale that is not a power of two, or a widths list of the wrong length.
    """

    def __init__(
        self,
        n_resblocks: int,
        n_feats: int,
        scale: int = 4,
        widths: Sequence[int] | None = None,
        value_range: float = 255.0,
    ) -> None:
        super().__init__()
        if scale < 2 or scale & (scale - 1):
            raise UsageError(f"DRN is built of 2x steps and has no scale {scale}; use 2, 4 or 8")
        self.scale = scale
        self.levels = int(math.log2(scale))
        self.value_range = float(value_range)
        dense = dense_widths(n_resblocks, n_feats, scale)
        chosen = iter(check_widths(widths, dense))

        self.sub_mean = MeanShift(value_range, -1)
        self.head = conv3x3(3, n_feats)
        self.down = nn.ModuleList(
            DownStep(n_feats * 2**p, next(chosen), n_feats * 2 ** (p + 1))
            for p in range(self.levels)
        )
        self.up_blocks = nn.ModuleList()
        for channels, outputs in _level_channels(n_feats, self.levels):
            blocks = [
                attention_block(channels, next(chosen), channels // 16) for _ in range(n_resblocks)
            ]
            width = next(chosen)
            upsampler = nn.Sequential(conv3x3(channels, 4 * width), nn.PixelShuffle(2))
            self.up_blocks.append(nn.Sequential(*blocks, upsampler, nn.Conv2d(width, outputs, 1)))
        self.tail = nn.ModuleList([conv3x3(n_feats * scale, 3)])
        self.tail.extend(conv3x3(n_feats * 2**p, 3) for p in range(self.levels, 0, -1))
        self.add_mean = MeanShift(value_range, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.interpolate(x, scale_factor=self.scale, mode="bicubic", align_corners=False)
        x = self.head(self.sub_mean(x))
        copies = []
        for step in self.down:
            copies.append(x)
            x = step(x)
        images = [self.add_mean(self.tail[0](x))]
        for blocks, tail in zip(self.up_blocks, self.tail[1:], strict=True):
            x = torch.cat((blocks(x), copies.pop()), 1)
            images.append(self.add_mean(tail(x)))
        return images


def _level_channels(n_feats: int, levels: int) -> list[tuple[int, int]]:
    """Channels in each up level, and channels its last 1x1 conv leaves, coarse to fine.

    Every level but the first reads a concatenation of two equal halves.
    """
    pairs = []
    for level in range(levels):
        channels = n_feats * 2 ** (levels - max(level - 1, 0))
        pairs.append((channels, n_feats * 2 ** (levels - 1 - level)))
    return pairs


def dense_widths(n_resblocks: int, n_feats: int, scale: int) -> list[int]:
    """The widths list of the uncompressed network, in the published order."""
    levels = int(math.log2(scale))
    widths = [n_feats * 2**p for p in range(levels)]
    for channels, _ in _level_channels(n_feats, levels):
        widths += [channels] * (n_resblocks + 1)
    return widths


def _register(
    name: str, sizes: dict[int, tuple[int, int]], source: str | None, compressed: bool = False
) -> None:
    """Register a preset; `sizes` are blocks and features, `source` is an address without scale."""
    arguments: dict[int, dict[str, Any]] = {}
    for scale, (blocks, features) in sizes.items():
        arguments[scale] = {"n_resblocks": blocks, "n_feats": features}
        if compressed:
            arguments[scale]["widths"] = published_widths(f"{name}_x{scale}")
    weights = {scale: WeightsFile(packaged=f"{name}_x{scale}.safetensors") for scale in sizes}
    if source is not None:
        weights = {scale: WeightsFile(url=source.format(scale)) for scale in sizes}
    register(Preset(name, DRN, arguments, value_range=255.0, weights=weights))


_SMALL = {4: (30, 16), 8: (30, 8)}
_register("drn_s", _SMALL, _RELEASE + "DRNS{}x.pt")
_register("drn_l", {4: (40, 20), 8: (36, 10)}, _RELEASE + "DRNL{}x.pt")
for _percent in (30, 50, 70):
    _file = f"{_PRUNED_RELEASE}DRNS_{{}}x_Prune_{_percent}.pt"
    _register(f"drn_s{_percent}", _SMALL, _file, compressed=True)
_register("drn_tiny", {4: (8, 8)}, None)

"""IMDN (Hui et al., ACM MM 2019): blocks that set channels aside, a quarter at each step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import UsageError
from drc.networks.registry import Preset, WeightsFile, register
from drc.networks.zoo.layers import ChannelAttention, conv3x3

_SLOPE = 0.05
_RELEASE = "https://github.com/Zheng222/IMDN/raw/master/checkpoints/"


class ContrastAttention(ChannelAttention):
    """Channel attention that looks at the standard deviation as well as the mean."""

    def forward(self, x: Tensor) -> Tensor:
        # torch's std, unlike a square root, has a gradient where a channel is constant: zero.
        contrast = x.std((2, 3), correction=0, keepdim=True)
        return x * self.conv_du(contrast + self.avg_pool(x))


class DistillationBlock(nn.Module):
    """Three convolutions that each keep a quarter of the channels and pass on the rest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kept, self.passed = channels // 4, channels - channels // 4
        self.c1 = conv3x3(channels, channels)
        self.c2 = conv3x3(self.passed, channels)
        self.c3 = conv3x3(self.passed, channels)
        self.c4 = conv3x3(self.passed, self.kept)
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.cca = ContrastAttention(channels, channels // 16)

    def forward(self, x: Tensor) -> Tensor:
        distilled, rest = [], x
        for conv in (self.c1, self.c2, self.c3):
            features = F.leaky_relu(conv(rest), _SLOPE, inplace=True)
            kept, rest = torch.split(features, [self.kept, self.passed], 1)
            distilled.append(kept)
        distilled.append(self.c4(rest))
        return x + self.c5(self.cca(torch.cat(distilled, 1)))


class IMDN(nn.Module):
    """Distillation blocks, all of them fused, then one PixelShuffle; official names.

    Input: `(N, 3, H, W)`, values 0..1, any size. Output: the SR image,
    `(N, 3, H * scale, W * scale)`.

    Args:
        n_feats: channels between the blocks, a multiple of 4 and at least 16.
        n_blocks: distillation blocks.
        scale: HR side over LR side.

    Raises:
        UsageError: other channels, or a scale below 1.
    """

    def __init__(self, n_feats: int = 64, n_blocks: int = 6, scale: int = 4) -> None:
        super().__init__()
        if n_feats % 4 or n_feats < 16:
            raise UsageError(f"IMDN takes a multiple of 4 channels from 16 on, not {n_feats}")
        if scale < 1:
            raise UsageError(f"IMDN upsamples by 1 or more, not by {scale}")
        self.scale, self.value_range, self.n_blocks = scale, 1.0, n_blocks
        self.fea_conv = conv3x3(3, n_feats)
        for number in range(1, n_blocks + 1):
            self.add_module(f"IMDB{number}", DistillationBlock(n_feats))
        self.c = nn.Sequential(
            nn.Conv2d(n_blocks * n_feats, n_feats, 1), nn.LeakyReLU(_SLOPE, inplace=True)
        )
        self.LR_conv = conv3x3(n_feats, n_feats)
        self.upsampler = nn.Sequential(conv3x3(n_feats, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.fea_conv(x)
        outputs = []
        for number in range(1, self.n_blocks + 1):
            x = self.get_submodule(f"IMDB{number}")(x)
            outputs.append(x)
        return self.upsampler(first + self.LR_conv(self.c(torch.cat(outputs, 1))))


register(
    Preset(
        name="imdn",
        build=IMDN,
        arguments={scale: {} for scale in (2, 3, 4)},
        value_range=1.0,
        weights={scale: WeightsFile(url=f"{_RELEASE}IMDN_x{scale}.pth") for scale in (2, 3, 4)},
    )
)

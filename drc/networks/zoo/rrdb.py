"""RRDBNet, the generator of ESRGAN (Wang et al., ECCV workshops 2018), for x4."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import UsageError
from drc.networks.registry import Preset, WeightsFile, register
from drc.networks.zoo.layers import conv3x3

_BRANCH = 0.2
"""What every residual branch is multiplied by, in the blocks and around three of them."""


class DenseBlock(nn.Module):
    """Five convolutions, each on everything before it; four of them add `growth` channels."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, growth)
        self.conv2 = conv3x3(channels + growth, growth)
        self.conv3 = conv3x3(channels + 2 * growth, growth)
        self.conv4 = conv3x3(channels + 3 * growth, growth)
        self.conv5 = conv3x3(channels + 4 * growth, channels)

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            features = torch.cat((features, _leaky(conv(features))), 1)
        return torch.add(x, self.conv5(features), alpha=_BRANCH)


class RRDB(nn.Module):
    """Three dense blocks around a skip."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(channels, growth)
        self.rdb2 = DenseBlock(channels, growth)
        self.rdb3 = DenseBlock(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=_BRANCH)


class RRDBNet(nn.Module):
    """Residual-in-residual dense blocks, then two nearest-neighbour 2x steps; BasicSR's names.

    Input: `(N, 3, H, W)`, values 0..1, any size. Output: the SR image, `(N, 3, 4 H, 4 W)`.

    Args:
        n_feats: channels between the blocks.
        n_blocks: blocks of three dense blocks.
        growth: channels that each convolution of a dense block adds.
        scale: 4.

    Raises:
        UsageError: another scale.
    """

    def __init__(self, n_feats: int, n_blocks: int, growth: int = 32, scale: int = 4) -> None:
        super().__init__()
        if scale != 4:
            raise UsageError(f"RRDB upsamples by 4, not by {scale}")
        self.scale, self.value_range = scale, 1.0
        self.conv_first = conv3x3(3, n_feats)
        self.body = nn.Sequential(*(RRDB(n_feats, growth) for _ in range(n_blocks)))
        self.conv_body = conv3x3(n_feats, n_feats)
        self.conv_up1 = conv3x3(n_feats, n_feats)
        self.conv_up2 = conv3x3(n_feats, n_feats)
        self.conv_hr = conv3x3(n_feats, n_feats)
        self.conv_last = conv3x3(n_feats, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = _leaky(conv(F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(_leaky(self.conv_hr(x)))


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)


# The adversarially trained ESRGAN: the network trained for PSNR has no direct address.
_ESRGAN = WeightsFile(
    url="https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.1/"
    "ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
    sha256="ff704c30ff560305e48ed1f4db895e525ab6bc81a46fafe80c0094a271c806d9",
)

register(
    Preset(
        name="rrdb",
        build=RRDBNet,
        arguments={4: {"n_feats": 64, "n_blocks": 23, "growth": 32}},
        value_range=1.0,
        weights={4: _ESRGAN},
    )
)

"""DCLS, deep constrained least squares for blind SR (Luo et al., CVPR 2022), and DCLS-DRC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import ModelError, UsageError
from drc.networks.dual import ChainDual
from drc.networks.registry import Preset, published_widths, register
from drc.networks.zoo.layers import ChannelAttention, check_widths, conv3x3, shuffle_steps

_BLOCKS = 3  # residual blocks in the estimator, and at the restorer's start
_REDUCTION = 4  # of the narrow path, and of the channel attention
_SMALLEST = 7  # pixels: three convolutions without padding look for the smoothness filter

FILTERS = {11: (7, 3, 3, 1), 21: (11, 7, 5, 1), 31: (11, 9, 7, 5, 3)}
"""Filter sizes of the deep linear generator, by the size of the kernel that their chain gives."""

_INSIDE = 16  # channels between the generator's filters
_COLOURS = 3


class LeakyBlock(nn.Module):
    """Residual block of two convolutions; `width` is the number of channels between them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, width)
        self.conv2 = conv3x3(width, channels)
        self.relu = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.relu(self.conv1(x)))


class Estimator(nn.Module):
    """LR image `(N, 3, H, W)` of at least 5x5 pixels -> blur kernel `(N, 1, k, k)` of sum 1.

    A small network of residual blocks, whose inner widths are `widths`, draws a latent from the
    whole image; from that, one linear layer per filter makes a chain of convolutions, whose answer
    to a single white pixel is the kernel.
    """

    def __init__(self, channels: int, kernel_size: int, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.shapes = _filter_shapes(kernel_size)
        self.head = nn.Sequential(nn.Conv2d(_COLOURS, channels, 7, padding=3))
        blocks = nn.Sequential(*(LeakyBlock(channels, width) for width in widths))
        self.body = nn.Sequential(blocks)
        self.tail = nn.Sequential(
            nn.Conv2d(channels, channels, 3),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, latent, 1),
        )
        self.dec = nn.ModuleList(_filter_maker(latent, shape) for shape in self.shapes)

    def forward(self, lr: Tensor) -> Tensor:
        f = self.head(lr)
        latent = self.tail(self.body(f) + f).flatten(1)
        filters = [
            layer(latent).view(-1, *shape)
            for layer, shape in zip(self.dec, self.shapes, strict=True)
        ]
        return chain_kernel(filters)


def _filter_shapes(kernel_size: int) -> list[tuple[int, int, int, int]]:
    """Weight shapes of the generator's convolutions, `(outputs, inputs, f, f)`."""
    if kernel_size not in FILTERS:
        raise UsageError(
            f"DCLS has no filters for a kernel of size {kernel_size}; "
            f"use {', '.join(map(str, FILTERS))}"
        )
    sizes = FILTERS[kernel_size]
    channels = [_COLOURS, *[_INSIDE] * (len(sizes) - 1), _COLOURS]
    return [
        (outputs, inputs, f, f)
        for (inputs, outputs), f in zip(pairwise(channels), sizes, strict=True)
    ]


def _filter_maker(latent: int, shape: tuple[int, int, int, int]) -> nn.Linear:
    """From a latent to a convolution's weights, which at first are nearly a single 1.

    So the first kernel assumes no blur. One of random filters may sum to almost nothing, and it
    is divided by that sum.
    """
    layer = nn.Linear(latent, math.prod(shape))
    inputs, middle = shape[1], shape[-1] // 2
    noise = 0.1 / math.prod(shape[1:])
    nn.init.normal_(layer.weight, std=noise)
    nn.init.normal_(layer.bias, std=noise)
    with torch.no_grad():
        layer.bias.view(shape)[:, :, middle, middle] += 1 / inputs
    return layer


def chain_kernel(filters: Sequence[Tensor]) -> Tensor:
    """The kernel `(N, 1, k, k)`, of sum 1, that a chain of convolutions amounts to.

    Args:
        filters: weights of each convolution, `(N, outputs, inputs, f, f)`: one set per image.
    """
    count = len(filters[0])
    # The first convolution's answer to a white pixel is its own weights, turned round.
    response = filters[0].sum(2).flip((2, 3)).flatten(0, 1)[None]
    for weights in filters[1:]:
        margin = weights.shape[-1] - 1
        response = F.conv2d(response, weights.flatten(0, 1), padding=margin, groups=count)
    kernel = response.view(count, -1, *response.shape[-2:]).flip((2, 3))
    kernel = _at_least_single(kernel).mean(1, keepdim=True)
    return kernel / kernel.sum((2, 3), keepdim=True)


class LeastSquares(nn.Module):
    """Constrained least squares: removes a blur from features, channel by channel.

    Features `(N, channels, H, W)` of at least 7x7 pixels and a kernel `(N, 1, k, k)` give
    features of the same shape. A quarter of the channels is left in between.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 4
        self.reduce_feature = nn.Conv2d(channels, width, 1)
        self.grad_filter = nn.Sequential(
            nn.Conv2d(width, width, 3),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(width, width, 3),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(width, width, 3),
            nn.AdaptiveAvgPool2d(3),
            nn.Conv2d(width, width, 1),
        )
        self.expand_feature = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        blurred = self.reduce_feature(x)
        smoothness = self.grad_filter(blurred).exp()
        smoothness = smoothness - smoothness.mean((2, 3), keepdim=True)
        return self.expand_feature(deconvolve(blurred, kernel, smoothness).to(x.dtype))


def deconvolve(blurred: Tensor, kernel: Tensor, smoothness: Tensor) -> Tensor:
    """The sharp image s that minimises |kernel * s - blurred|^2 + |smoothness * s|^2.

    In the Fourier domain `conj(K) B / (|K|^2 + |P|^2)`; the image repeats its border first, by
    the size of the kernel on each side, because the Fourier transform wraps round.

    Args:
        blurred: B, `(N, C, H, W)`.
        kernel: K, `(N, 1 or C, k, k)`, its centre at `k // 2`.
        smoothness: P, `(N, 1 or C, p, p)`, likewise; it penalises what passes it.

    Returns:
        `(N, C, H, W)`, in single precision at least, for that is what the transform takes.
    """
    margin = kernel.shape[-1]
    padded = F.pad(_at_least_single(blurred), (margin,) * 4, mode="replicate")
    size = padded.shape[-2:]
    blur, penalty = _transfer(kernel, size), _transfer(smoothness, size)
    # All of the spectrum, not the half that would do: where blur and penalty are both next to
    # nothing, rounding decides, and the published results have that of both halves in them.
    spectrum = blur.conj() * torch.fft.fft2(padded) / (_power(blur) + _power(penalty))
    sharp = torch.fft.ifft2(spectrum).real
    return sharp[..., margin:-margin, margin:-margin]


def _transfer(kernel: Tensor, size: Sequence[int]) -> Tensor:
    """The spectrum of a kernel in an image of `size`, its centre at the origin."""
    height, width = kernel.shape[-2:]
    whole = F.pad(_at_least_single(kernel), (0, size[1] - width, 0, size[0] - height))
    return torch.fft.fft2(whole.roll((-(height // 2), -(width // 2)), (-2, -1)))


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _at_least_single(x: Tensor) -> Tensor:
    """Half precision widened; the transform does not take it at most sizes."""
    return x.float() if x.dtype.itemsize < torch.float32.itemsize else x


class DualPathBlock(nn.Module):
    """Residual block over two paths with channel attention; the narrow path feeds the wide one.

    `width` is the number of channels between the wide path's convolutions.
    """

    def __init__(self, wide: int, narrow: int, width: int) -> None:
        super().__init__()
        self.body1 = nn.Sequential(
            conv3x3(wide, width), nn.LeakyReLU(0.1, inplace=True), conv3x3(width, wide)
        )
        self.body2 = nn.Sequential(
            conv3x3(narrow, narrow), nn.LeakyReLU(0.1, inplace=True), conv3x3(narrow, narrow)
        )
        self.CA_body1 = nn.Sequential(
            nn.LeakyReLU(0.1, inplace=True),
            conv3x3(wide + narrow, wide),
            ChannelAttention(wide, wide // _REDUCTION),
        )
        self.CA_body2 = ChannelAttention(narrow, narrow // _REDUCTION)

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.body1(x1), self.body2(x2)
        return x1 + self.CA_body1(torch.cat((a, b), 1)), x2 + self.CA_body2(b)


class DualPathGroup(nn.Module):
    """Blocks in a row; `widths` are theirs."""

    def __init__(self, wide: int, narrow: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.body = nn.Sequential(*(DualPathBlock(wide, narrow, width) for width in widths))

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.body:
            x1, x2 = block(x1, x2)
        # The published weights were trained with the result added to itself, not to the input.
        return 2 * x1, 2 * x2


class Restorer(nn.Module):
    """LR image `(N, 3, H, W)` and its blur kernel `(N, 1, k, k)` -> SR image in 0..1.

    `channels` are those of the wide path, of which the narrow one has a quarter; `first` and
    `groups` are the inner widths of the residual blocks at the start and of each group's blocks.
    """

    def __init__(
        self, channels: int, scale: int, first: Sequence[int], groups: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        narrow = channels // _REDUCTION
        self.conv_first = conv3x3(3, channels)
        self.feature_block = nn.Sequential(*(LeakyBlock(channels, width) for width in first))
        self.head1 = conv3x3(channels, narrow)
        self.head2 = LeastSquares(channels)
        self.body = nn.Sequential(*(DualPathGroup(channels, narrow, widths) for widths in groups))
        self.fusion = conv3x3(channels + narrow, channels)
        last = conv3x3(channels, 3)
        assert last.bias is not None
        with torch.no_grad():  # first images are grey: a clamped pixel has no gradient
            last.weight.mul_(0.1)
            last.bias.fill_(0.5)
        self.upscale = nn.Sequential(*shuffle_steps(scale, channels), last)

    def forward(self, lr: Tensor, kernel: Tensor) -> Tensor:
        f = self.conv_first(lr)
        features = self.feature_block(f)
        x1, x2 = self.head2(features, kernel), self.head1(features)
        for group in self.body:
            x1, x2 = group(x1, x2)
        return self.upscale(self.fusion(torch.cat((x2, x1), 1)) + f).clamp(0, 1)


class DCLS(nn.Module):
    """Blind SR network: estimates the blur of the LR image, and removes it in feature space.

    Input: `(N, 3, H, W)`, values 0..1, at least 7x7 pixels. Output of `forward`: the SR image,
    `(N, 3, H * scale, W * scale)`, clamped to 0..1; `restore` gives the kernel as well.

    The restorer's loss does not reach the estimator in training, as published: that learns from
    `drc.training.kernel_loss`. In eval mode gradients do pass, so that what an estimator's
    channel is worth to the image can be measured.

    Args:
        features: channels of the wide path, at least 16.
        blocks: dual-path blocks per group.
        groups: of blocks.
        kernel_size: side of the blur kernel in LR pixels, 11, 21 or 31.
        latent: size of the latent that the kernel is generated from.
        scale: 2, 3, 4 or 8.
        widths: the compressed widths in the published order: the estimator's residual blocks, its
            latent, the restorer's residual blocks, then the blocks of each group. None for the
            dense network.

    Raises:
        UsageError: a kernel size without a chain of filters, too few features, or unusable widths.
    """

    def __init__(
        self,
        features: int = 64,
        blocks: int = 10,
        groups: int = 5,
        kernel_size: int = 31,
        latent: int = 256,
        scale: int = 4,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if features < _REDUCTION**2:
            raise UsageError(f"DCLS needs at least {_REDUCTION**2} features, not {features}")
        self.scale, self.kernel_size = scale, kernel_size
        dense = [*[features] * _BLOCKS, latent, *[features] * (_BLOCKS + groups * blocks)]
        chosen = iter(check_widths(widths, dense))

        def take(count: int) -> list[int]:
            return [next(chosen) for _ in range(count)]

        self.Estimator = Estimator(features, kernel_size, take(_BLOCKS), take(1)[0])
        self.Restorer = Restorer(
            features, scale, take(_BLOCKS), [take(blocks) for _ in range(groups)]
        )

    def forward(self, lr: Tensor) -> Tensor:
        return self.restore(lr)[0]

    def restore(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the SR image and the blur kernel `(N, 1, k, k)`, which sums to 1.

        Raises:
            ModelError: the image is smaller than 7x7 pixels.
        """
        height, width = lr.shape[-2:]
        if min(height, width) < _SMALLEST:
            raise ModelError(
                f"DCLS needs images of at least {_SMALLEST}x{_SMALLEST} pixels, got "
                f"{height}x{width}; pad the image, or take a larger one"
            )
        kernel = self.Estimator(lr)
        return self.Restorer(lr, kernel.detach() if self.training else kernel), kernel


def _register_presets() -> None:
    """The anisotropic and the isotropic setting of the paper, and its compressed form.

    Outputs were compared with the official ones at x4 with kernel 31. For its anisotropic x2
    weights the official source hints at a softmax over the kernel, which is not done here.
    """
    anisotropic: dict[int, dict[str, Any]] = {2: {"kernel_size": 11}, 4: {"kernel_size": 31}}
    isotropic: dict[int, dict[str, Any]] = {scale: {"kernel_size": 21} for scale in (2, 3, 4)}
    compressed = {4: {**anisotropic[4], "widths": published_widths("dcls_drc_x4")}}
    presets = {"dcls": anisotropic, "dcls_iso": isotropic, "dcls_drc": compressed}
    for name, arguments in presets.items():
        register(Preset(name, DCLS, arguments, value_range=1.0, dual=ChainDual))


_register_presets()

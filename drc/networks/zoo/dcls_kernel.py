"""The two halves of DCLS that know about blur: its kernel estimator and its least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.core.errors import UsageError
from drc.networks.zoo.layers import conv3x3

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

    A small network draws a latent from the whole image; from that, one linear layer per filter
    makes a chain of convolutions, whose answer to a single white pixel is the kernel.

    Args:
        channels: of the small network.
        kernel_size: k, one of `FILTERS`.
        widths: inner width of each residual block.
        latent: size of the latent.

    Raises:
        UsageError: a kernel size without a chain of filters.
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

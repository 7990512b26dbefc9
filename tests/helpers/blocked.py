"""Small networks whose channels come in parts that must stay equally wide, and other hard cases."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from helpers.networks import conv
from helpers.sized import Framed


class TwoWays(Framed):
    """Halves of one convolution feed different convolutions."""

    def __init__(self) -> None:
        super().__init__(16, 24)
        self.a, self.b = conv(8, 10), conv(8, 14)

    def body(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.cat((self.a(first), self.b(second)), 1)


class Heads(Framed):
    """Attention whose head count alone is fixed: every width is read off the tensors."""

    def __init__(self) -> None:
        super().__init__(12)
        self.norm, self.qkv, self.proj = nn.LayerNorm(12), nn.Linear(12, 36), nn.Linear(12, 12)

    def body(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm(tokens)).reshape(b, h * w, 3, 2, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-1, -2) * 6**-0.5).softmax(-1) @ v
        tokens = tokens + self.proj(mixed.transpose(1, 2).reshape(b, h * w, -1))
        return tokens.transpose(1, 2).reshape(b, -1, h, w)


class GroupedTwice(Framed):
    def __init__(self) -> None:
        super().__init__(24, 16)
        self.one, self.two = conv(24, 24, groups=3), conv(24, 16, groups=2)

    def body(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.one(x)))


class GroupedUp(Framed):
    def __init__(self) -> None:
        super().__init__(12, 8)
        self.up = nn.ConvTranspose2d(12, 8, 4, 2, 1, groups=2)

    def body(self, x: Tensor) -> Tensor:
        return self.up(x)


class NormedGroups(Framed):
    def __init__(self) -> None:
        super().__init__(24, 12)
        self.norm, self.middle, self.plain = nn.GroupNorm(4, 24), conv(24, 12), nn.GroupNorm(3, 12)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def body(self, x: Tensor) -> Tensor:
        return self.plain(F.silu(self.middle(self.norm(x))))


class OneGroup(Framed):
    """GroupNorm over all channels and pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 16)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(x)


class ChannelShuffled(Framed):
    def __init__(self) -> None:
        super().__init__(16, 16)
        self.grouped, self.shuffle = conv(16, 16, groups=2), nn.ChannelShuffle(2)
        self.again = conv(16, 16, 1, groups=2)

    def body(self, x: Tensor) -> Tensor:
        return self.again(self.shuffle(self.grouped(x)))


class HandShuffled(Framed):
    def __init__(self) -> None:
        super().__init__(16, 16)
        self.grouped, self.again = conv(16, 16, groups=2), conv(16, 16, 1, groups=2)

    def body(self, x: Tensor) -> Tensor:
        x = self.grouped(x)
        n, c, h, w = x.shape
        return self.again(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Rearranged(Framed):
    """einops, with the heads in front in one place and behind in the other."""

    def __init__(self) -> None:
        super().__init__(12)
        self.qkv, self.proj = conv(12, 36, 1), conv(12, 12, 1)

    def body(self, x: Tensor) -> Tensor:
        from einops import rearrange

        q, k, v = rearrange(self.qkv(x), "b (p h c) x y -> p b h (x y) c", p=3, h=3)
        mixed = (q @ k.transpose(-1, -2) * 0.5).softmax(-1) @ v
        return self.proj(rearrange(mixed, "b h (x y) c -> b (h c) x y", x=x.shape[2]))


class RearrangedWidth(Framed):
    """einops, told the width of a head."""

    def __init__(self) -> None:
        super().__init__(12)
        self.value, self.proj = conv(12, 12, 1), conv(12, 12, 1)

    def body(self, x: Tensor) -> Tensor:
        from einops import rearrange

        heads = rearrange(self.value(x), "b (h c) x y -> b h c x y", c=4)
        heads = heads.softmax(2)
        return self.proj(rearrange(heads, "b h c x y -> b (h c) x y"))


class ReadWidth(Framed):
    """Attention that reads its scale off the query, and asserts a width that it was built with."""

    def __init__(self) -> None:
        super().__init__(12)
        self.dim = 12
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def body(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        assert c == self.dim, f"{c} channels instead of {self.dim}"
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5 / math.sqrt(k.size(-1))
        tokens = self.proj(scores.softmax(-1) @ v)
        return tokens.transpose(1, 2).reshape(b, c, h, w)


class SoftGate(Framed):
    """A softmax over the channels of each half."""

    def __init__(self) -> None:
        super().__init__(16, 8)

    def body(self, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, 1)
        return gate.softmax(1) * value


class HeadScales(Framed):
    """One temperature for every head of an attention between channels."""

    def __init__(self) -> None:
        super().__init__(12)
        self.qkv, self.proj = conv(12, 36, 1), conv(12, 12, 1)
        self.temperature = nn.Parameter(torch.rand(2, 1, 1) + 0.5)

    def body(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        parts = self.qkv(x).chunk(3, 1)
        q, k, v = (part.reshape(b, 2, -1, h * w) for part in parts)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = (q @ k.transpose(-1, -2) * self.temperature).softmax(-1)
        return self.proj((weights @ v).reshape(b, -1, h, w))


class DataWritten(Framed):
    """`weight.data` is computed from other weights in every forward in eval mode."""

    def __init__(self) -> None:
        super().__init__(12, 10)
        self.expand, self.squeeze = conv(12, 20, 1, bias=False), conv(20, 10, bias=False)
        self.merged = conv(12, 10)
        self.merged.weight.requires_grad_(False)
        self.merged.bias.requires_grad_(False)

    def body(self, x: Tensor) -> Tensor:
        if self.training:
            return self.squeeze(self.expand(x))
        weight = F.conv2d(self.squeeze.weight.flip(2, 3), self.expand.weight.permute(1, 0, 2, 3))
        self.merged.weight.data = weight.flip(2, 3)
        self.merged.bias.data = torch.zeros(len(weight), dtype=weight.dtype)
        return self.merged(x)


class SpectralNormed(Framed):
    def __init__(self) -> None:
        super().__init__(12, 10)
        self.middle = nn.utils.parametrizations.spectral_norm(conv(12, 10))

    def body(self, x: Tensor) -> Tensor:
        return self.middle(x)


class Centred(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight - weight.mean((1, 2, 3), keepdim=True)


class Parametrised(Framed):
    """Weight standardisation, as a parametrisation."""

    def __init__(self) -> None:
        super().__init__(12, 10)
        self.middle = conv(12, 10)
        nn.utils.parametrize.register_parametrization(self.middle, "weight", Centred())

    def body(self, x: Tensor) -> Tensor:
        return self.middle(x)


class NewWeightNormed(Framed):
    def __init__(self) -> None:
        super().__init__(12, 10)
        self.middle = nn.utils.parametrizations.weight_norm(conv(12, 10))
        self.depth = nn.utils.parametrizations.weight_norm(conv(10, 10, groups=10))

    def body(self, x: Tensor) -> Tensor:
        return self.depth(self.middle(x))


class OldWeightNormed(Framed):
    def __init__(self) -> None:
        super().__init__(12, 10)
        self.middle = nn.utils.weight_norm(conv(12, 10))

    def body(self, x: Tensor) -> Tensor:
        return self.middle(x)


class ComplexScaled(Framed):
    """A complex scale per channel in the Fourier domain."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(16, 1, 1, 2))
        self.mix = nn.Parameter(torch.randn(16, 1, 1, dtype=torch.complex64))

    def body(self, x: Tensor) -> Tensor:
        waves = torch.fft.rfft2(x) * torch.view_as_complex(self.scale)
        return torch.fft.irfft2(waves * self.mix, s=x.shape[-2:])


class ComplexMixed(Framed):
    """A complex matrix over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(10, 16, dtype=torch.complex64) / 4)
        self.last = conv(10, 16)

    def body(self, x: Tensor) -> Tensor:
        waves = torch.fft.rfft2(x)
        waves = torch.einsum("oc,bchw->bohw", self.mix.to(waves.dtype), waves)
        return self.last(torch.fft.irfft2(waves, s=x.shape[-2:]))


class Checkpointed(Framed):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(conv(16, 20), nn.ReLU(), conv(20, 16))

    def body(self, x: Tensor) -> Tensor:
        x = checkpoint(self.inner, x, use_reentrant=False)
        return checkpoint(self.halves, x, use_reentrant=False)

    def halves(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, :8].tanh(), x[:, 8:]), 1)


class SharedModule(Framed):
    """One block used at two places, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(conv(16, 20), nn.ReLU(), conv(20, 16))
        self.again = self.block

    def body(self, x: Tensor) -> Tensor:
        x = x + self.block(x)
        return x + self.again(x)


class TiedWeights(Framed):
    """One weight, once as it is and once transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(20, 16) / 4)

    def body(self, x: Tensor) -> Tensor:
        tokens = F.relu(F.linear(x.permute(0, 2, 3, 1), self.weight))
        return F.linear(tokens, self.weight.t()).permute(0, 3, 1, 2)


class Buffered(Framed):
    """Integer, boolean and float buffers beside the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(16))
        self.register_buffer("mean", torch.rand(16, 1, 1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.norm = nn.BatchNorm2d(16)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(x - self.mean)


BLOCKED: tuple[type[Framed], ...] = (
    TwoWays, Heads, GroupedTwice, GroupedUp, NormedGroups, OneGroup, ChannelShuffled, HandShuffled,
    Rearranged, RearrangedWidth, ReadWidth, SoftGate, HeadScales, DataWritten, SpectralNormed,
    Parametrised, NewWeightNormed, OldWeightNormed, ComplexScaled, ComplexMixed, Checkpointed,
    SharedModule, TiedWeights, Buffered,
)  # fmt: skip

NO_PICKLE = (SpectralNormed, Parametrised, NewWeightNormed)
"""torch pickles no module with a parametrisation."""

"""Hand-made networks without attention: splits, shuffles, computed weights, Fourier, norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .frame import conv


class LiteralSplit(nn.Module):
    """Information distillation: the split sizes stand in the source."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fuse = conv(16, 64), conv(48, 24), conv(40, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = torch.split(F.leaky_relu(self.first(x), 0.05), [16, 48], 1)
        return self.fuse(torch.cat((kept, self.second(rest)), 1))


class ShuffledGroups(nn.Module):
    """Grouped convolutions with a channel shuffle written by hand between them."""

    def __init__(self, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.reduce = conv(16, 24, 1, groups=groups)
        self.depth = conv(24, 24, groups=24)
        self.expand = conv(24, 16, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.reduce(x))
        n, c, h, w = x.shape
        x = x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.expand(self.depth(x))


class WeightNormed(nn.Module):
    """Weights that are a direction times a magnitude."""

    def __init__(self) -> None:
        super().__init__()
        weight_norm = nn.utils.parametrizations.weight_norm
        self.widen = weight_norm(conv(16, 40))
        self.narrow = weight_norm(conv(40, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.relu(self.widen(x)))


class OldWeightNormed(nn.Module):
    """The older form of it, which writes a plain attribute before every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        weight_norm = nn.utils.weight_norm
        self.widen = weight_norm(conv(16, 40))
        self.narrow = weight_norm(conv(40, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.relu(self.widen(x)))


class Reparameterised(nn.Module):
    """One kernel, computed in the forward pass from a 1x1, a 3x3, another 1x1 and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.middle = conv(16, 32, 1, bias=False), conv(32, 32, bias=False)
        self.squeeze, self.skip = conv(32, 24, 1, bias=False), conv(16, 24, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(24, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(24))
        self.narrow = conv(24, 16)

    def kernel(self) -> Tensor:
        weight = F.conv2d(self.middle.weight, self.expand.weight.permute(1, 0, 2, 3))
        out, inner, size, _ = weight.shape
        weight = self.squeeze.weight.flatten(1) @ weight.reshape(out, -1)
        weight = weight.view(-1, inner, size, size) * self.scale
        return weight + F.pad(self.skip.weight, (1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.relu(F.conv2d(x, self.kernel(), self.bias, padding=1)))


class Fourier(nn.Module):
    """1x1 convolutions on real and imaginary parts, one after the other in the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.mix, self.out = conv(16, 12), conv(24, 24, 1), conv(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        waves = torch.fft.rfft2(x, norm="ortho")
        both = F.relu(self.mix(torch.cat((waves.real, waves.imag), 1)))
        real, imaginary = both.chunk(2, 1)
        waves = torch.complex(real, imaginary)
        return self.out(torch.fft.irfft2(waves, s=x.shape[-2:], norm="ortho"))


class FourierUnits(nn.Module):
    """The form of fast Fourier convolution: real and imaginary parts side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.mix, self.out = conv(16, 12), conv(24, 24, 1), conv(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        pairs = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))
        n, c, h, w, _ = pairs.shape
        both = pairs.permute(0, 1, 4, 2, 3).reshape(n, 2 * c, h, w)
        both = F.relu(self.mix(both))
        pairs = both.view(n, -1, 2, h, w).permute(0, 1, 3, 4, 2).contiguous()
        waves = torch.view_as_complex(pairs)
        return self.out(torch.fft.irfft2(waves, s=x.shape[-2:], norm="ortho"))


class WrittenInPlace(nn.Module):
    """Branches written into slices of one tensor, at places that stand in the source."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.fuse = conv(16, 16), conv(16, 24, 1), conv(40, 16)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        out = x.new_empty(n, 40, h, w)
        out[:, :16] = self.left(x)
        out[:, 16:] = self.right(x)
        out[:, :16] += 1
        return self.fuse(F.relu_(out))


class DenselyConnected(nn.Module):
    """Two residual dense blocks, as in RRDB."""

    def __init__(self, channels: int = 16, growth: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                conv(channels + i * growth, growth if i < 3 else channels) for i in range(4)
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layers in self.blocks:
            features = [x]
            for layer in layers:
                features.append(F.leaky_relu(layer(torch.cat(features, 1)), 0.2))
            x = x + 0.2 * features[-1]
        return x


class SelectiveKernel(nn.Module):
    """Branches of several kernels, weighed by a softmax over the branches."""

    def __init__(self, channels: int = 16, branches: int = 3) -> None:
        super().__init__()
        self.branches = nn.ModuleList(conv(channels, channels, 2 * i + 1) for i in range(branches))
        self.squeeze = nn.Sequential(conv(channels, 8, 1, bias=False), nn.PReLU())
        self.weigh = nn.ModuleList(conv(8, channels, 1) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        features = torch.stack([branch(x) for branch in self.branches], 1)
        squeezed = self.squeeze(F.adaptive_avg_pool2d(features.sum(1), 1))
        weights = torch.cat([weigh(squeezed) for weigh in self.weigh], 1)
        weights = weights.view(x.shape[0], len(self.branches), -1, 1, 1).softmax(1)
        return (features * weights).sum(1)


class Gated(nn.Module):
    """A feed-forward part whose halves gate each other."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.depth = conv(16, 48, 1), conv(48, 48, groups=48)
        self.narrow = conv(24, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.depth(self.widen(x)).chunk(2, 1)
        return self.narrow(F.gelu(gate) * value)


class GatedLinear(nn.Module):
    """The same by F.glu, on tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.widen, self.narrow = nn.LayerNorm(16), nn.Linear(16, 40), nn.Linear(20, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.narrow(F.glu(self.widen(self.norm(tokens)), -1))


class GroupNormed(nn.Module):
    """Statistics over the channels of one group."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.norm, self.narrow = conv(16, 32), nn.GroupNorm(4, 32), conv(32, 16)
        _unlike_initial(self.norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.silu(self.norm(self.widen(x))))


class BatchAndInstanceNormed(nn.Module):
    """Norms per channel: one on stored statistics, one on both, one on those of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = conv(16, 24), conv(24, 20), conv(20, 16)
        self.batch = nn.BatchNorm2d(24)
        self.instance = nn.InstanceNorm2d(20, affine=True, track_running_stats=True)
        self.plain = nn.InstanceNorm2d(16)
        _unlike_initial(self.batch)
        _unlike_initial(self.instance)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.batch(self.first(x)))
        return self.plain(self.third(F.relu(self.instance(self.second(x)))))


class ChannelNormed(nn.Module):
    """A layer norm over the channels, written by hand."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1, channels, 1, 1) + 0.5)
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.widen, self.narrow = conv(channels, 32, 1), conv(32, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.narrow(F.gelu(self.widen(x * self.weight + self.bias)))


class Checkpointed(nn.Module):
    """Blocks that are run again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(16, 24), nn.ReLU(inplace=True), conv(24, 16)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        return x


class Unshuffled(nn.Module):
    """PixelUnshuffle on the way in, PixelShuffle twice on the way out."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.middle = conv(12, 32), conv(32, 48)
        self.inner, self.tail = conv(12, 12), conv(12, 12)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.into(F.pixel_unshuffle(image, 2)))
        x = F.pixel_shuffle(self.middle(x), 2)
        return F.pixel_shuffle(self.tail(F.relu(self.inner(x))), 2)


class MaskedInputs(nn.Module):
    """Inpainting in miniature: an image, and a mask that must be given by name."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.middle, self.tail = conv(4, 16), conv(16, 24), conv(24, 3)

    def forward(self, image: Tensor, *, mask: Tensor) -> Tensor:
        x = F.relu(self.head(torch.cat((image * (1 - mask), mask), 1)))
        return image * (1 - mask) + self.tail(F.relu(self.middle(x))) * mask


def _unlike_initial(norm: nn.Module) -> None:
    """Give a norm the parameters and statistics of a trained one."""
    with torch.no_grad():
        for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "mean" not in name else tensor.normal_()

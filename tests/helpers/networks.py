"""Small real networks, each around one construction that pruning must get right."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


class Plain(nn.Module):
    """conv - ReLU - conv - PixelShuffle, the smallest SR network."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 8), conv(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(F.relu(self.head(x))), 2)


class Shuffled(nn.Module):
    """A PixelShuffle in the middle: four channels before it are one after it."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.up, self.tail = conv(3, 8), conv(8, 24), conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(F.pixel_shuffle(self.up(F.leaky_relu(self.head(x), 0.1)), 2))


class Residual(nn.Module):
    """Blocks around one stream, written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 8), conv(8, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(8, 12), nn.ReLU(inplace=True), conv(12, 8)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for block in self.blocks:
            x = x.clone().add_(block(x), alpha=0.5)
        return self.tail(x)


class Dense(nn.Module):
    """Concatenations of concatenations."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), conv(4, 6), conv(10, 8)
        self.tail = conv(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        both = torch.cat((a, torch.tanh(self.b(a))), 1)
        return self.tail(torch.cat((both, self.c(both)), 1))


class Gated(nn.Module):
    """Halves of one convolution, one gating the other."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 16), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.head(x).chunk(2, dim=1)
        return self.tail(value * torch.sigmoid(gate))


class Attention(nn.Module):
    """Channel attention and spatial attention in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 8), conv(8, 3)
        self.squeeze, self.excite, self.mask = conv(8, 4, 1), conv(4, 8, 1), conv(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.tail(x * torch.sigmoid(self.mask(x)))


class Depthwise(nn.Module):
    """Depthwise convolution with multiplier 1 and 2, and its transposed form."""

    def __init__(self) -> None:
        super().__init__()
        self.head = conv(3, 8)
        self.depth = conv(8, 8, groups=8)
        self.twice = conv(8, 16, groups=8)
        self.up = nn.ConvTranspose2d(16, 16, 2, stride=2, groups=16)
        self.tail = conv(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.up(self.twice(F.gelu(self.depth(self.head(x))))))


class Grouped(nn.Module):
    """A convolution in two groups: both must lose the same number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.middle, self.tail = conv(3, 8), conv(8, 12, groups=2), conv(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(F.relu(self.middle(self.head(x))))


class Transposed(nn.Module):
    """Learned upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 6), conv(10, 3)
        self.up = nn.ConvTranspose2d(6, 10, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(F.relu(self.up(self.head(x))))


class Normed(nn.Module):
    """Batch norm with buffers, per-channel PReLU and a per-channel scale parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 8), conv(8, 3)
        self.norm, self.act = nn.BatchNorm2d(8), nn.PReLU(8)
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.act(self.norm(self.head(x))) * self.scale)


class Shared(nn.Module):
    """One convolution used twice, so that its input and output are the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.twice, self.tail = conv(3, 8), conv(8, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(self.twice(F.relu(self.twice(x))))


class Written(nn.Module):
    """Results written piece by piece into a new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.tail = conv(3, 4), conv(3, 6), conv(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        out = x.new_zeros(x.shape[0], a.shape[1] + b.shape[1], *x.shape[2:])
        out[:, : a.shape[1]] = a
        out[:, a.shape[1] :].copy_(b)
        return self.tail(out)


class Pyramid(nn.Module):
    """Several outputs, one of them a dict, as blind SR networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.small, self.large = conv(3, 8), conv(8, 3), conv(8, 12)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        x = F.elu(self.head(F.interpolate(x, scale_factor=2, mode="bicubic")))
        return {"sr": [self.small(F.max_pool2d(x, 2)), F.pixel_shuffle(self.large(x), 2)]}


class Tokens(nn.Module):
    """An MLP on tokens with a residual; linear layers where others have convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.tail = conv(3, 8), conv(8, 3)
        self.up, self.down = nn.Linear(8, 20), nn.Linear(20, 8)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.down(F.gelu(self.up(tokens)))
        return self.tail(tokens.transpose(1, 2).reshape(n, -1, h, w))


class GroupNormed(nn.Module):
    """Statistics over the channels of each half, which lose equally many."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm = conv(3, 8), nn.GroupNorm(2, 8)
        self.middle, self.tail = conv(8, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(F.relu(self.middle(self.norm(self.head(x)))))


class Sorted(nn.Module):
    """Channels in the order of their values."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.middle, self.tail = conv(3, 8), conv(8, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sort(self.head(x), dim=1).values
        return self.tail(F.relu(self.middle(x)))


class Unknown(nn.Module):
    """An op that drc has no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.middle, self.tail = conv(3, 8), conv(8, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        counts = torch.histc(x.float(), 4).to(x.dtype)
        return self.tail(F.relu(self.middle(x)) * counts.mean())


class Positional(nn.Module):
    """Channels picked by a list of numbers that stands in the source."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.middle, self.tail = conv(3, 8), conv(8, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)[:, [7, 2, 1, 0, 6, 4, 5, 3]]
        return self.tail(F.relu(self.middle(x)))


class Counted(nn.Module):
    """A sum over channels, divided by their number."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(x - x.sum(1, keepdim=True) / x.shape[1])


class Conditional(nn.Module):
    """A forward that insists on its width."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        assert x.shape[1] == 8
        return self.tail(F.relu(x))


class CountedByLayer(Counted):
    """As above, with the number that a layer says it has."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(x - x.sum(1, keepdim=True) / self.head.out_channels)


class ConditionalByLayer(Conditional):
    """As above, of the layer."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.head.out_channels == 8
        return self.tail(F.relu(self.head(x)))


class HardCoded(nn.Module):
    """A size in the source, which the cut network must be given anew."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.middle, self.tail = conv(3, 8), conv(8, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        x = x.view(x.shape[0], 8, *x.shape[2:])
        return self.tail(F.relu(self.middle(x)))


REMOVABLE = {
    Counted: [8],
    Conditional: [8],
    Plain: [8],
    Shuffled: [8, 6],
    Residual: [8, 12, 12],
    Dense: [4, 6, 8],
    Gated: [8],
    Attention: [8, 4],
    Depthwise: [8],
    Grouped: [4, 6],
    Transposed: [6, 10],
    Normed: [8],
    Shared: [8],
    Written: [4, 6],
    Pyramid: [8],
    Tokens: [8, 20],
    GroupNormed: [4, 8],
    HardCoded: [8, 8],
}
"""Every network here, and how many atoms each of its removable groups has."""


class UnevenHalves(nn.Module):
    """Halves of one convolution that go different ways: they must stay equally wide."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 32), conv(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.head(x).chunk(2, 1)
        return self.tail(torch.cat((F.relu(first), torch.sigmoid(second)), 1))


class ClosedBranch(nn.Module):
    """The same behind a gate that starts at zero, which would hide a fault."""

    def __init__(self) -> None:
        super().__init__()
        self.halves, self.skip, self.tail = UnevenHalves(), conv(3, 8), conv(8, 3)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(F.relu(self.skip(x))) + self.gate * self.halves(x)


class SometimesTaken(nn.Module):
    """A branch that only large images, or training, take."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.large, self.aux, self.tail = conv(3, 8), conv(8, 8), conv(8, 3), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        if x.shape[-1] > 12:
            y = y + self.large(y)
        return self.tail(y) + (self.aux(y) if self.training else 0)


class AfterShuffle(nn.Module):
    """Residual, channel attention and mean right after a PixelShuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.up, self.tail = conv(3, 8), conv(8, 24), conv(6, 3)
        self.inner, self.attention = conv(6, 6), conv(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_shuffle(self.up(F.relu(self.head(x))), 2)
        y = y * torch.sigmoid(self.attention(y.mean((2, 3), keepdim=True)))
        return self.tail(y + self.inner(y))


class Unfolded(nn.Module):
    """Convolutions written as unfold and a matrix product, with padding."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.mix, self.tail = conv(3, 8), nn.Linear(72, 10), conv(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        columns = F.unfold(self.head(x), 3, padding=1).transpose(1, 2)
        return self.tail(self.mix(columns).transpose(1, 2).reshape(n, -1, h, w))


class WeightNormed(nn.Module):
    """A depthwise weight that is computed from a direction and a magnitude."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 8), conv(8, 3)
        self.depth = nn.utils.parametrizations.weight_norm(conv(8, 8, groups=8))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.depth(self.head(x)))


REMOVABLE.update(
    {
        AfterShuffle: [8, 6], Unfolded: [8, 10], UnevenHalves: [16], ClosedBranch: [8, 16],
        WeightNormed: [8],
    }
)  # fmt: skip

"""Random networks assembled from all that the tracer supports: any cut equals masking."""

from __future__ import annotations

import pytest
import torch
from helpers.cutting import error, random_keep
from helpers.networks import conv
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from drc.graph.surgery import cut
from drc.graph.trace import trace

WINDOW = 4

NO_SHRINK = (Phase.explicit, Phase.generate)  # a failing network is small as it is


class Part(nn.Module):
    """One construction on a stream of `width` channels, which it gives back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.build(width)

    def build(self, width: int) -> None:
        raise NotImplementedError


class ResidualPart(Part):
    def build(self, width: int) -> None:
        self.body = nn.Sequential(conv(width, width + 3), nn.ReLU(), conv(width + 3, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class DensePart(Part):
    def build(self, width: int) -> None:
        self.grow, self.fuse = conv(width, 5), conv(width + 5, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat((x, F.leaky_relu(self.grow(x), 0.2)), 1))


class GroupedPart(Part):
    def build(self, width: int) -> None:
        self.grouped, self.depth = (
            conv(width, 2 * width, groups=2),
            conv(width, width, groups=width),
        )
        self.fuse = conv(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(F.gelu(self.grouped(self.depth(x))))


class GatePart(Part):
    def build(self, width: int) -> None:
        self.widen, self.narrow = conv(width, 3 * width), conv(width + width // 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.widen(x).chunk(2, 1)
        return x + self.narrow(torch.sigmoid(gate) * value)


class SqueezePart(Part):
    def build(self, width: int) -> None:
        self.body = nn.Sequential(conv(width, 4, 1), nn.SiLU(), conv(4, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.body(x.mean((2, 3), keepdim=True))


class WindowPart(Part):
    """Attention in shifted windows; sizes are spelled out as the Swin networks do."""

    def build(self, width: int) -> None:
        self.norm, self.heads = nn.LayerNorm(width), 2
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s, width = WINDOW, self.width
        x = x.roll((-2, -2), (2, 3)).view(b, c, h // s, s, w // s, s)
        tokens = self.norm(x.permute(0, 2, 4, 3, 5, 1).reshape(-1, s * s, c))
        qkv = self.qkv(tokens).reshape(-1, s * s, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * 0.4).softmax(-1) @ v
        out = self.proj(mixed.transpose(1, 2).reshape(-1, s * s, width))
        out = out.view(b, h // s, w // s, s, s, -1).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, h, w)
        return out.roll((2, 2), (2, 3))


class TokenPart(Part):
    def build(self, width: int) -> None:
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width + 4), nn.Linear(width + 4, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.down(F.gelu(self.up(self.norm(tokens))))
        return tokens.transpose(1, 2).reshape(x.shape)


class ShufflePart(Part):
    def build(self, width: int) -> None:
        self.up, self.down = conv(width, 4 * width), conv(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.pixel_unshuffle(F.relu(F.pixel_shuffle(self.up(x), 2)), 2))


class SplitPart(Part):
    def build(self, width: int) -> None:
        self.first, self.rest = conv(width, width + 3), conv(width, width, 1)
        self.fuse = conv(width + 3, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = torch.split(self.first(x), [3, self.width], 1)
        return self.fuse(torch.cat((kept, F.relu(self.rest(rest))), 1))


class WrittenPart(Part):
    def build(self, width: int) -> None:
        self.left, self.right, self.fuse = conv(width, 4), conv(width, 6), conv(10, width)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        out = x.new_zeros(n, 10, h, w)
        out[:, :4] = self.left(x)
        out[:, 4:] = self.right(x)
        return self.fuse(F.relu(out))


class ResizedPart(Part):
    def build(self, width: int) -> None:
        self.up = nn.ConvTranspose2d(width, width, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        small = F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)
        return x + F.max_pool2d(self.up(x), 2) * F.interpolate(small, size=x.shape[-2:])


class WeightNormPart(Part):
    def build(self, width: int) -> None:
        weight_norm = nn.utils.parametrizations.weight_norm
        self.body = nn.Sequential(weight_norm(conv(width, width + 2)), nn.PReLU(width + 2))
        self.fuse = weight_norm(conv(width + 2, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.body(x))


class NormPart(Part):
    def build(self, width: int) -> None:
        self.norms = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.GroupNorm(2, width), nn.InstanceNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.norms(x) + x


class ChannelAttentionPart(Part):
    """Attention between channels, with one temperature for each head."""

    def build(self, width: int) -> None:
        self.qkv, self.proj = conv(width, 3 * width, 1), conv(width, width, 1)
        self.temperature = nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = (p.reshape(b, 2, -1, h * w) for p in self.qkv(x).chunk(3, 1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        mixed = (q @ k.transpose(-1, -2) * self.temperature).softmax(-1) @ v
        return self.proj(mixed.reshape(b, -1, h, w))


class FusedPart(Part):
    def build(self, width: int) -> None:
        self.query, self.both = nn.Linear(width, 12), nn.Linear(width, 24)
        self.proj = nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q = self.query(tokens).view(b, h * w, 2, 6).transpose(1, 2)
        k, v = self.both(tokens).view(b, h * w, 2, 2, 6).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.proj(mixed).transpose(1, 2).reshape(b, -1, h, w)


class FourierPart(Part):
    def build(self, width: int) -> None:
        self.mix = conv(2 * width, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.fft.rfft2(x, norm="ortho")
        real, imaginary = F.relu(self.mix(torch.cat((waves.real, waves.imag), 1))).chunk(2, 1)
        return torch.fft.irfft2(torch.complex(real, imaginary), s=x.shape[-2:], norm="ortho")


PARTS: tuple[type[Part], ...] = (
    ResidualPart, DensePart, GroupedPart, GatePart, SqueezePart, WindowPart, TokenPart, ShufflePart,
    SplitPart, WrittenPart, ResizedPart, WeightNormPart, NormPart, ChannelAttentionPart, FusedPart,
    FourierPart,
)  # fmt: skip


class Assembled(nn.Module):
    """RGB in, RGB at twice the size out, and some parts between, nested in a long residual."""

    def __init__(self, parts: list[type[Part]], width: int) -> None:
        super().__init__()
        self.head, self.tail = conv(3, width), conv(width, 12)
        self.parts = nn.ModuleList(part(width) for part in parts)

    def forward(self, image: Tensor) -> Tensor:
        first = x = self.head(image)
        for part in self.parts:
            x = part(x)
        return F.pixel_shuffle(self.tail(x + first), 2)


@settings(max_examples=20, deadline=None, derandomize=True, phases=NO_SHRINK)
@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
    width=st.sampled_from([8, 12]),
    seed=st.integers(0, 2**20),
)
def test_any_assembly_is_cut_exactly(parts: list[type[Part]], width: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = Assembled(parts, width).eval().double()
    graph = trace(model, torch.rand(1, 3, 8, 8, dtype=torch.float64))
    assert graph.groups, graph.frozen
    image = torch.rand(2, 3, 12, 16, dtype=torch.float64)
    assert error(model, graph, random_keep(graph, seed), image) < 1e-9
    everything = {group.name: list(range(group.size)) for group in graph.groups}
    with torch.no_grad():
        assert torch.equal(cut(model, graph, everything)(image), model(image))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_nothing_in_a_part_is_frozen(part: type[Part]) -> None:
    ends = ("network input", "network output", "counts heads")
    graph = trace(Assembled([part, ResidualPart], 8).eval())
    stuck = [f for f in graph.frozen if not f.reason.startswith(ends)]
    if part is ShufflePart:  # the four places that a shuffle and its inverse keep apart
        assert {f.size for f in stuck} <= {32}
    else:
        assert not stuck


@settings(max_examples=12, deadline=None, derandomize=True, phases=NO_SHRINK)
@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 2**20),
)
def test_cutting_twice_is_exact_too(parts: list[type[Part]], seed: int) -> None:
    torch.manual_seed(seed)
    model = Assembled(parts, 12).eval().double()
    graph = trace(model)
    once = cut(model, graph, {g.name: list(range(1, g.size)) for g in graph.groups})
    again = trace(once)
    image = torch.rand(2, 3, 16, 8, dtype=torch.float64)
    assert error(once, again, random_keep(again, seed), image) < 1e-9

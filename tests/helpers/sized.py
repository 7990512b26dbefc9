"""Small networks whose forward spells out sizes that a cut changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.networks import conv


class Framed(nn.Module):
    """RGB in and out, with `body` between: from `width` channels to `out` channels."""

    def __init__(self, width: int = 16, out: int | None = None) -> None:
        super().__init__()
        self.head, self.tail = conv(3, width), conv(out or width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(F.relu(self.body(F.leaky_relu(self.head(x), 0.1))))

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class UnevenSplit(Framed):
    def __init__(self) -> None:
        super().__init__(64, 12)
        self.rest = conv(48, 12)
        self.kept = conv(16, 12, 1)

    def body(self, x: Tensor) -> Tensor:
        kept, rest = torch.split(x, [16, 48], dim=1)
        return self.kept(kept) * self.rest(rest)


class RepeatedSplit(Framed):
    """Information multi-distillation: what remains is split again and again."""

    def __init__(self) -> None:
        super().__init__(16, 16)
        self.first, self.second, self.last = conv(16, 16), conv(12, 16), conv(12, 4)

    def body(self, x: Tensor) -> Tensor:
        one, rest = self.first(x).split((4, 12), 1)
        two, rest = self.second(rest).split((4, 12), 1)
        three, four = self.last(rest).split(2, 1)
        return torch.cat((one, two, three, four, x[:, :4]), 1)


class LiteralView(Framed):
    def body(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return x.view(n, 16, h * w).tanh().view(n, 16, h, w)


class OthersWidth(Framed):
    """A width read off the stream shapes what the heads give."""

    def __init__(self) -> None:
        super().__init__(12)
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def body(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).reshape(b, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-1, -2) * 6**-0.5).softmax(-1) @ v
        tokens = tokens + self.proj(mixed.transpose(1, 2).reshape(b, h * w, c))
        return tokens.transpose(1, 2).reshape(b, c, h, w)


class OwnWidth(Framed):
    def __init__(self) -> None:
        super().__init__(12)
        self.dim = 12
        self.embed, self.proj = nn.Linear(12, 12), nn.Linear(12, 12)

    def body(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        tokens = self.embed(x.permute(0, 2, 3, 1).reshape(-1, self.dim)).view(b, -1, self.dim)
        return self.proj(F.gelu(tokens)).transpose(1, 2).reshape(b, self.dim, h, w)


class Slices(Framed):
    def __init__(self) -> None:
        super().__init__(24, 10)
        self.a, self.b, self.c, self.d = conv(8, 10), conv(16, 10), conv(4, 10), conv(20, 10)

    def body(self, x: Tensor) -> Tensor:
        halves = self.a(x[:, :8]) + self.b(x[:, 8:])
        return halves * self.c(x[:, -4:]) + self.d(x[:, :-4])


class MiddleSlice(Framed):
    def __init__(self) -> None:
        super().__init__(16, 16)
        self.middle = conv(6, 6)

    def body(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, :4], self.middle(x[:, 4:10]), x[:, 10:, :, :]), 1)


class Narrowed(Framed):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.a, self.b = conv(12, 12), conv(4, 12)

    def body(self, x: Tensor) -> Tensor:
        return self.a(x.narrow(1, 0, 12)) + self.b(torch.narrow(x, 1, 12, 4))


class Expanded(Framed):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(16, 1, 1) + 0.5)
        self.gate = conv(1, 1, 1)

    def body(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        gate = torch.sigmoid(self.gate(x.mean(1, keepdim=True))).expand(n, 16, h, w)
        return x * self.scale.expand(n, 16, h, w) * gate


class Recurrent(Framed):
    """A hidden state that starts as zeros of a spelled-out width."""

    def __init__(self) -> None:
        super().__init__(8, 10)
        self.step = conv(18, 10)

    def body(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        state = torch.zeros(b, 10, h, w, dtype=x.dtype, device=x.device)
        for _ in range(2):
            state = torch.tanh(self.step(torch.cat((x, state), 1)))
        return state


class MadeNew(Framed):
    def __init__(self) -> None:
        super().__init__()
        self.mix = conv(16, 16)

    def body(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        bias = torch.full((n, 16, h, w), 0.5, dtype=x.dtype)
        return self.mix(x + bias) * x.new_ones(n, 16, 1, 1) + x.new_zeros((16, h, w))


class Unflattened(Framed):
    def __init__(self) -> None:
        super().__init__(16, 8)
        self.mix = conv(8, 8)

    def body(self, x: Tensor) -> Tensor:
        halves = x.unflatten(1, (2, 8))
        return self.mix(halves[:, 0] * torch.sigmoid(halves[:, 1]))


class Interleaved(Framed):
    """Parts of a channel lie together: four neighbours are one channel of the output."""

    def __init__(self) -> None:
        super().__init__(16, 4)

    def body(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return x.reshape(n, 4, 4, h, w).sum(2)


class FunctionalDepthwise(Framed):
    def __init__(self) -> None:
        super().__init__()
        self.dim = 16
        self.weight = nn.Parameter(torch.randn(16, 1, 3, 3) / 3)
        self.register_buffer("blur", torch.ones(16, 1, 3, 3) / 9)

    def body(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, None, 1, 1, 1, self.dim)
        return F.conv2d(x, self.blur, padding=1, groups=self.dim)


class FixedLayerNorm(Framed):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(16) + 0.5)
        self.shift = nn.Parameter(torch.rand(16))

    def body(self, x: Tensor) -> Tensor:
        tokens = F.layer_norm(x.permute(0, 2, 3, 1), (16,), self.scale, self.shift)
        return F.layer_norm(tokens + 1, normalized_shape=[16]).permute(0, 3, 1, 2)


class DefaultScale(Framed):
    """scaled_dot_product_attention divides by the root of the width it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(16, 20) for _ in range(3))
        self.proj = nn.Linear(20, 16)

    def body(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (
            layer(tokens).view(b, -1, 2, 10).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, 20)
        return (tokens + self.proj(mixed)).transpose(1, 2).reshape(b, -1, h, w)


class RootOfWidth(Framed):
    """A scale computed from the width at hand, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = conv(16, 8, 1), conv(16, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        q, k = self.query(x).flatten(2), self.key(x).flatten(2)
        weights = (q.transpose(1, 2) @ k / math.sqrt(8)).softmax(-1)
        return x + (x.flatten(2) @ weights.transpose(1, 2)).view_as(x)


class TorchAttention(Framed):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return tokens.transpose(1, 2).reshape(x.shape[0], 16, *x.shape[2:])


class TorchTransformer(Framed):
    """Whose layers have a fused form in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)

    def body(self, x: Tensor) -> Tensor:
        tokens = self.layers(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])


class FirstNormed(Framed):
    """The other order of a transformer layer, with length first and another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 24, 0.0, "gelu", norm_first=True)

    def body(self, x: Tensor) -> Tensor:
        tokens = self.layer(x.flatten(2).permute(2, 0, 1))
        return tokens.permute(1, 2, 0).reshape(x.shape[0], -1, *x.shape[2:])


SIZED: tuple[type[Framed], ...] = (
    UnevenSplit, RepeatedSplit, LiteralView, OthersWidth, OwnWidth, Slices, MiddleSlice, Narrowed,
    Expanded, Recurrent, MadeNew, Unflattened, Interleaved, FunctionalDepthwise, FixedLayerNorm,
    DefaultScale, RootOfWidth, TorchAttention, TorchTransformer, FirstNormed,
)  # fmt: skip

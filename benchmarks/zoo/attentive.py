"""Hand-made networks with attention: heads, windows, tables of positions, sparse choices."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .frame import conv


class LiteralHeads(nn.Module):
    """Attention on tokens whose head count and head width stand in the source."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(20, 60), nn.Linear(20, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        b, n, _ = tokens.shape
        q, k, v = self.qkv(tokens).view(b, n, 3, 2, 10).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * 10**-0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, 20))


class StreamWidth(nn.Module):
    """Window attention as in SwinIR: the width of the stream shapes the heads' result."""

    def __init__(self, dim: int = 24, heads: int = 3, window: int = 4) -> None:
        super().__init__()
        self.dim, self.heads, self.window = dim, heads, window
        self.scale = (dim // heads) ** -0.5
        self.norm = nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s = self.window
        x = x.roll((-s // 2, -s // 2), (2, 3)).view(b, c, h // s, s, w // s, s)
        tokens = self.norm(x.permute(0, 2, 4, 3, 5, 1).reshape(-1, s * s, c))
        n_windows, n, width = tokens.shape
        qkv = self.qkv(tokens).reshape(n_windows, n, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q * self.scale @ k.transpose(-2, -1)).softmax(-1)
        tokens = self.proj((weights @ v).transpose(1, 2).reshape(n_windows, n, self.dim))
        x = tokens.view(b, h // s, w // s, s, s, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)
        return x.roll((s // 2, s // 2), (2, 3))


class RelativePositions(nn.Module):
    """Attention in windows of 4x4 with a table of biases, one column per head, read by index."""

    def __init__(self, dim: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = conv(dim, 3 * dim, 1), conv(dim, dim, 1)
        self.table = nn.Parameter(0.5 * torch.randn(49, heads))
        place = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
        offset = place.flatten(1)[:, :, None] - place.flatten(1)[:, None] + 3
        self.register_buffer("index", offset[0] * 7 + offset[1])

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        qkv = F.unfold(self.qkv(x), 4, stride=4)
        q, k, v = qkv.view(b, 3, self.heads, -1, 16, qkv.shape[-1]).permute(1, 0, 5, 2, 4, 3)
        bias = self.table[self.index.view(-1)].view(16, 16, -1).permute(2, 0, 1)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias).softmax(-1)
        out = (weights @ v).permute(0, 2, 4, 3, 1).reshape(b, -1, qkv.shape[-1])
        return self.proj(F.fold(out, (h, w), 4, stride=4))


class LearnedPositions(nn.Module):
    """A table of position embeddings, resized to the image, ahead of an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.table = conv(16, 24), nn.Parameter(0.1 * torch.randn(1, 24, 8, 8))
        self.up, self.down = nn.Linear(24, 48), nn.Linear(48, 16)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        x = self.embed(x) + F.interpolate(self.table, size=size, mode="bilinear")
        return self.down(F.gelu(self.up(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


class RearrangedAttention(nn.Module):
    """Attention by einops and einsum, with heads cut out of a convolution's channels."""

    def __init__(self, dim: int = 16, heads: int = 2, width: int = 12) -> None:
        super().__init__()
        self.heads, self.scale = heads, width**-0.5
        self.qkv, self.proj = conv(dim, 3 * heads * width, 1), conv(heads * width, dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        parts = self.qkv(image).chunk(3, 1)
        q, k, v = (rearrange(p, "b (h d) x y -> b h d (x y)", h=self.heads) for p in parts)
        scores = torch.einsum("b h d i, b h d j -> b h i j", q * self.scale, k)
        out = torch.einsum("b h i j, b h d j -> b h d i", scores.softmax(-1), v)
        height, width = image.shape[-2:]
        return self.proj(rearrange(out, "b h d (x y) -> b (h d) x y", x=height, y=width))


class TransposedAttention(nn.Module):
    """Attention between the channels of a head, as in Restormer."""

    def __init__(self, dim: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.depth = conv(dim, 3 * dim, 1), conv(3 * dim, 3 * dim, groups=3 * dim)
        self.proj = conv(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.depth(self.qkv(x)).chunk(3, 1)
        q, k, v = (rearrange(p, "b (h c) x y -> b h c (x y)", h=self.heads) for p in parts)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1)
        height = x.shape[-2]
        return self.proj(rearrange(weights @ v, "b h c (x y) -> b (h c) x y", x=height))


class FusedAttention(nn.Module):
    """torch's own scaled_dot_product_attention."""

    def __init__(self, dim: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, 24) for _ in range(3))
        self.proj = nn.Linear(24, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        b, n, _ = tokens.shape
        q, k, v = (
            layer(tokens).view(b, n, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(b, n, -1))


class TransformerBlock(nn.Module):
    """torch's own MultiheadAttention and an MLP, each after a layer norm."""

    def __init__(self, dim: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 40), nn.GELU(), nn.Linear(40, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.first(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.second(tokens))


class LocalAttention(nn.Module):
    """Every pixel attends to the 3x3 around it, cut out by unfold."""

    def __init__(self, dim: int = 16, inner: int = 12) -> None:
        super().__init__()
        self.query, self.key, self.value = (conv(dim, inner, 1) for _ in range(3))
        self.proj = conv(inner, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q = self.query(x).flatten(2).unsqueeze(2)
        k, v = (
            F.unfold(layer(x), 3, padding=1).view(b, -1, 9, h * w)
            for layer in (self.key, self.value)
        )
        weights = (q * k).sum(1, keepdim=True).softmax(2)
        return self.proj((weights * v).sum(2).view(b, -1, h, w))


class PatchAttention(nn.Module):
    """Attention between overlapping patches, cut out by unfold and put back by fold."""

    def __init__(self, dim: int = 16, inner: int = 6) -> None:
        super().__init__()
        self.reduce, self.expand = conv(dim, inner, 1), conv(inner, dim, 1)
        self.query, self.key = nn.Linear(16 * inner, 24), nn.Linear(16 * inner, 24)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(self.reduce(x), 4, stride=2, padding=1).transpose(1, 2)
        scores = self.query(patches) @ self.key(patches).transpose(1, 2) / 24**0.5
        patches = (scores.softmax(-1) @ patches).transpose(1, 2)
        return self.expand(F.fold(patches, x.shape[-2:], 4, stride=2, padding=1))


class ChosenTokens(nn.Module):
    """Sparse attention: keys and values of the best tokens only, fetched by gather."""

    def __init__(self, dim: int = 16, inner: int = 20, chosen: int = 8) -> None:
        super().__init__()
        self.chosen = chosen
        self.router = nn.Linear(dim, 1)
        self.query, self.key, self.value = (nn.Linear(dim, inner) for _ in range(3))
        self.proj = nn.Linear(inner, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        best = self.router(tokens).squeeze(-1).topk(self.chosen, 1).indices
        few = tokens.gather(1, best.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        q, k, v = self.query(tokens), self.key(few), self.value(few)
        weights = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1)
        return self.proj(weights @ v)


class SparseScores(nn.Module):
    """Only the largest scores of every pixel stay: a mask written by scatter."""

    def __init__(self, dim: int = 16, inner: int = 20, chosen: int = 6) -> None:
        super().__init__()
        self.chosen = chosen
        self.query, self.key, self.value = (conv(dim, inner, 1) for _ in range(3))
        self.proj = conv(inner, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        scores = q.transpose(1, 2) @ k * 20**-0.5
        mask = torch.zeros_like(scores)
        mask.scatter_(-1, scores.topk(self.chosen, -1).indices, 1.0)
        scores = torch.where(mask > 0, scores, torch.full_like(scores, float("-inf")))
        return self.proj(
            (v @ scores.softmax(-1).transpose(1, 2)).view(x.shape[0], -1, *x.shape[2:])
        )


class ScatteredTokens(nn.Module):
    """The best tokens go through an MLP and are scattered back to where they came from."""

    def __init__(self, dim: int = 16, chosen: int = 16) -> None:
        super().__init__()
        self.chosen = chosen
        self.router, self.embed = nn.Linear(dim, 1), nn.Linear(dim, 24)
        self.up, self.down, self.proj = nn.Linear(24, 40), nn.Linear(40, 24), nn.Linear(24, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.router(tokens).sigmoid()
        x = self.embed(tokens)
        best = scores.topk(self.chosen, 1).indices.expand(-1, -1, x.shape[-1])
        better = self.down(F.gelu(self.up(x.gather(1, best))))
        return self.proj(x.scatter(1, best, better) * scores)

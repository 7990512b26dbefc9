"""torch's multi-head attention with heads narrower than the stream.

`nn.MultiheadAttention` takes the width of its heads from the width of the stream. Once its heads
are cut the two differ, so the cut module computes the same thing here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def narrow_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dense: int,
    heads: int,
    in_weight: Tensor,
    in_bias: Tensor | None,
    out_weight: Tensor,
    out_bias: Tensor | None,
    *,
    dropout: float = 0.0,
    padding: Tensor | None = None,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """softmax(q k^T / sqrt(d)) v, with `d` the width that a head had before the cut.

    Args:
        query: `(L, N, E)` or `(L, E)`; key and value `(S, N, E)` or `(S, E)`.
        key: as query.
        value: as query.
        dense: width of all heads together before the cut.
        heads: number of heads.
        in_weight: `(3 W, E)`, with `W` the width of all heads now; in_bias `(3 W,)`.
        in_bias: as in_weight.
        out_weight: `(E, W)`; out_bias `(E,)`.
        out_bias: as out_weight.
        dropout: of the attention, 0 in eval mode.
        padding: `(N, S)`, keys to leave out (True, or added to the scores).
        mask: `(L, S)` or `(N heads, L, S)`, as padding.
        need_weights: return the attention too.
        average: over the heads.

    Returns:
        The outputs, shaped like the query, and the attention `(N, L, S)` or `(N, heads, L, S)`.
    """
    batched = query.ndim == 3
    if not batched:
        query, key, value = (tensor.unsqueeze(1) for tensor in (query, key, value))
        padding = None if padding is None else padding.unsqueeze(0)
    length, batch, _ = query.shape
    weights = in_weight.chunk(3)
    biases = (None, None, None) if in_bias is None else in_bias.chunk(3)
    triples = zip((query, key, value), weights, biases, strict=True)
    q, k, v = (
        F.linear(tensor, weight, bias).unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)
        for tensor, weight, bias in triples
    )
    scores = q @ k.transpose(-1, -2) / math.sqrt(dense // heads)
    if mask is not None:
        scores = scores + _added(mask, scores).reshape(
            -1, heads if mask.ndim == 3 else 1, *mask.shape[-2:]
        )
    if padding is not None:
        scores = scores + _added(padding, scores)[:, None, None]
    attention = F.dropout(scores.softmax(-1), dropout)
    mixed = (attention @ v).permute(2, 0, 1, 3).reshape(length, batch, -1)
    outputs = F.linear(mixed, out_weight, out_bias)
    shown = (attention.mean(1) if average else attention) if need_weights else None
    if not batched:
        return outputs.squeeze(1), None if shown is None else shown.squeeze(0)
    return outputs, shown


def _added(mask: Tensor, scores: Tensor) -> Tensor:
    """A mask as numbers to add: minus infinity where a boolean one is True."""
    if mask.dtype != torch.bool:
        return mask.to(scores)
    return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, -math.inf)

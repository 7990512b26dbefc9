"""About thirty small networks, each around one construction that is hard to prune."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from . import attentive as a
from . import convolutional as c
from .frame import TokenUpscaler, Upscaler
from .published import Entry

_IMAGE_BODIES: tuple[Callable[[], nn.Module], ...] = (
    c.LiteralSplit,
    c.ShuffledGroups,
    c.WeightNormed,
    c.OldWeightNormed,
    c.Reparameterised,
    c.Fourier,
    c.FourierUnits,
    c.WrittenInPlace,
    c.DenselyConnected,
    c.SelectiveKernel,
    c.Gated,
    c.GroupNormed,
    c.BatchAndInstanceNormed,
    c.ChannelNormed,
    c.Checkpointed,
    a.RelativePositions,
    a.LearnedPositions,
    a.RearrangedAttention,
    a.TransposedAttention,
    a.LocalAttention,
    a.PatchAttention,
    a.SparseScores,
)
_TOKEN_BODIES = (
    c.GatedLinear,
    a.FusedAttention,
    a.TransformerBlock,
    a.ChosenTokens,
    a.ScatteredTokens,
)


def _build(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def _image_and_mask() -> dict[str, Tensor]:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    return {"image": image, "mask": mask}


def _entry(
    body: Callable[[], nn.Module], make: Callable[[], nn.Module], inputs: Any = None
) -> Entry:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", body.__name__).lower()  # type: ignore[attr-defined]
    return Entry(name, partial(_build, make), inputs, "hand-made")


_ENTRIES = (
    *(_entry(body, lambda body=body: Upscaler(body(), 16)) for body in _IMAGE_BODIES),
    *(_entry(body, lambda body=body: TokenUpscaler(body(), 16)) for body in _TOKEN_BODIES),
    _entry(a.LiteralHeads, lambda: TokenUpscaler(a.LiteralHeads(), 20)),
    _entry(a.StreamWidth, lambda: Upscaler(a.StreamWidth(), 24)),
    _entry(c.Unshuffled, c.Unshuffled),
    _entry(c.MaskedInputs, c.MaskedInputs, _image_and_mask),
)

NETWORKS = {entry.name: entry for entry in _ENTRIES}

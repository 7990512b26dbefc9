"""Bicubic enlargement as a network: the baseline that an SR network must beat."""

from __future__ import annotations

from torch import Tensor, nn

from drc.data.matlab import upscale
from drc.networks.traits import Traits, set_traits


class Bicubic(nn.Module):
    """`(N, C, h, w)` -> `(N, C, h * scale, w * scale)`, by MATLAB's bicubic filter."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        set_traits(self, Traits(scale=scale))

    def forward(self, x: Tensor) -> Tensor:
        return upscale(x, self.scale)

"""What the hand-made networks share: the ends of a small SR network around one hard case."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


class Upscaler(nn.Module):
    """RGB in, RGB at twice the size out; `body` sits on a residual stream of `channels`."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.head, self.body, self.tail = conv(3, channels), body, conv(channels, 12)

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(image)
        return F.pixel_shuffle(self.tail(x + self.body(x)), 2)


class TokenUpscaler(Upscaler):
    """The same for a body that takes tokens `(B, N, C)`, one per pixel."""

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(image)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.body(tokens)
        return F.pixel_shuffle(self.tail(tokens.transpose(1, 2).reshape(x.shape)), 2)

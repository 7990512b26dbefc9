"""What SwinIR and DAT share: attention in windows of an image, and the layers around the body."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from drc.core.errors import UsageError
from drc.networks.zoo.layers import RGB_MEAN, conv3x3, shuffle_steps

Size = tuple[int, int]
"""Height and width."""

_BEFORE_UPSAMPLE = 64
_APART = -100.0
"""Added to the score of two tokens that are no neighbours; the published masks hold this value."""


def to_windows(x: Tensor, window: Size) -> Tensor:
    """Cut `(N, H, W, C)`, sides multiples of the window's, into `(N windows, tokens, C)`."""
    x = x.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
    return x.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def from_windows(x: Tensor, window: Size, size: Size) -> Tensor:
    """The opposite of `to_windows`; `size` is that of the image."""
    x = x.unflatten(0, (-1, size[0] // window[0], size[1] // window[1])).unflatten(3, window)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T + bias + mask) v in every window.

    Written out, for counters of multiply-adds do not see into torch's fused attention.

    Args:
        q: `(N windows, heads, tokens, width)`, scaled; so k and v.
        k: as q.
        v: as q; its width may be another.
        bias: `(heads, tokens, tokens)`.
        mask: `(windows, tokens, tokens)` or None.

    Returns:
        `(N windows, tokens, heads * width)`.
    """
    scores = q @ k.transpose(-2, -1) + bias
    if mask is not None:
        scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask.unsqueeze(1)).flatten(0, 1)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def shift_mask(
    size: Size, window: Size, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """What keeps tokens apart that a shift by half a window brought together from two borders.

    Args:
        size: of the image, multiples of the window's sides.
        window: of the windows.
        device: of the mask.
        dtype: of the mask.

    Returns:
        `(windows, tokens, tokens)`: 0 for neighbours, -100 for others.
    """
    rows, columns = (_regions(side, step, device) for side, step in zip(size, window, strict=True))
    region = (3 * rows[:, None] + columns)[None, :, :, None]
    tokens = to_windows(region, window).squeeze(-1)
    apart = tokens.unsqueeze(1) != tokens.unsqueeze(2)
    return torch.zeros(apart.shape, device=device, dtype=dtype).masked_fill(apart, _APART)


def _regions(length: int, window: int, device: torch.device | None) -> Tensor:
    """0 outside the last window of a shifted axis, 1 and 2 in its halves, `(length,)`."""
    index = torch.arange(length, device=device)
    return (index >= length - window).long() + (index >= length - window // 2).long()


def relative_index(window: Size) -> Tensor:
    """Number of the offset between every two tokens of a window, `(tokens, tokens)`, from 0."""
    rows, columns = _positions(window)
    down = rows[:, None] - rows + window[0] - 1
    right = columns[:, None] - columns + window[1] - 1
    return down * (2 * window[1] - 1) + right


def offsets(window: Size) -> Tensor:
    """All offsets in the order of `relative_index`, as float `(offsets, 2)`: down, right."""
    rows, columns = _positions((2 * window[0] - 1, 2 * window[1] - 1))
    return torch.stack((rows - window[0] + 1, columns - window[1] + 1), -1).float()


def _positions(size: Size) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel, row by row."""
    index = torch.arange(size[0] * size[1])
    return index // size[1], index % size[1]


def check_windows(img_size: int, window: Size) -> None:
    """Raise UsageError unless the windows have halves and fill an image of that size."""
    if any(side < 2 or side % 2 or img_size % side for side in window):
        raise UsageError(
            f"windows of {window[0]}x{window[1]} do not fill an image of {img_size}x{img_size} "
            "in two ways half a window apart; use even sides that divide img_size"
        )


class TransformerSR(nn.Module, ABC):
    """An SR network whose body is a transformer, around which a convolution makes a skip.

    Input: `(N, 3, H, W)`, values 0..1. Output: `(N, 3, H * scale, W * scale)`. A constructor adds
    its body's layers, then calls `add_end`; so the names are in the published order.

    Args:
        scale: HR side over LR side.
        channels: of the body.
    """

    mean: Tensor

    def __init__(self, scale: int, channels: int) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(3, 1, 1), persistent=False)
        self.conv_first = conv3x3(3, channels)

    def add_end(self, channels: int, direct: bool = False) -> None:
        """Add the layers after the body, and set the initial weights of all.

        Args:
            channels: of the body.
            direct: upsample by one convolution and PixelShuffle, not by steps of them.

        Raises:
            UsageError: a scale that the upsampler does not make.
        """
        self.direct = direct
        self.norm = nn.LayerNorm(channels)
        self.conv_after_body = conv3x3(channels, channels)
        if direct:
            if self.scale < 2:
                raise UsageError(f"this network upsamples by 2 or more, not by {self.scale}")
            outputs = conv3x3(channels, 3 * self.scale**2)
            self.upsample = nn.Sequential(outputs, nn.PixelShuffle(self.scale))
        else:
            self.conv_before_upsample = nn.Sequential(
                conv3x3(channels, _BEFORE_UPSAMPLE), nn.LeakyReLU(inplace=True)
            )
            self.upsample = nn.Sequential(*shuffle_steps(self.scale, _BEFORE_UPSAMPLE))
            self.conv_last = conv3x3(_BEFORE_UPSAMPLE, 3)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        first = self.conv_first(self.padded(x) - self.mean)
        features = self.norm(self.body(first.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        x = self.conv_after_body(features) + first
        if self.direct:
            x = self.upsample(x)
        else:
            x = self.conv_last(self.upsample(self.conv_before_upsample(x)))
        return (x + self.mean)[..., : height * self.scale, : width * self.scale]

    def padded(self, x: Tensor) -> Tensor:
        """The image as the body takes it, larger at the bottom and on the right."""
        return x

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """Run the transformer on `(N, H, W, channels)`; same shape out."""


def _initialise(part: nn.Module) -> None:
    """The initial weights of the published transformers."""
    if isinstance(part, nn.Linear):
        nn.init.trunc_normal_(part.weight, std=0.02)
        nn.init.zeros_(part.bias)

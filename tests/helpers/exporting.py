"""Small networks to export, and what their files must give."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.data.bundled import bundled_pairs
from drc.data.images import read_image, to_unit
from drc.networks.traits import Traits, set_traits
from drc.networks.zoo.drn import DRN

Array = npt.NDArray[np.float32]


def small_drn() -> DRN:
    """A pyramid network in 0..255, x2."""
    torch.manual_seed(0)
    model = DRN(1, 8, scale=2).eval()
    set_traits(model, Traits(scale=2, value_range=255.0))
    return model


def photo(height: int, width: int, channels: int = 3) -> Tensor:
    """A piece of a photo as an LR image, `(1, channels, height, width)` in 0..1."""
    image = to_unit(read_image(bundled_pairs("test")[1].hr))
    return image[None, :channels, 100 : 100 + height, 50 : 50 + width].contiguous()


def in_unit_range(model: nn.Module, lr: Tensor, value_range: float) -> Array:
    """The last image of a network for `lr` in 0..1, in 0..1."""
    with torch.no_grad():
        outputs = model(lr * value_range)
    last = outputs[-1] if isinstance(outputs, list) else outputs
    return (last / value_range).numpy()


class Plain(nn.Module):
    """Convolutions and a PixelShuffle, x2, in 0..1."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, 8, 3, padding=1)
        self.tail = nn.Conv2d(8, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(self.between(F.relu(self.head(x)))), 2)

    def between(self, x: Tensor) -> Tensor:
        return x


class Multiples(Plain):
    """Takes only images whose sides are multiples of 16."""

    def between(self, x: Tensor) -> Tensor:
        if x.shape[2] % 16 or x.shape[3] % 16:
            raise ValueError("sides must be multiples of 16")
        return x


class Baked(Plain):
    """Makes a grid of Python numbers, which no graph keeps open."""

    def between(self, x: Tensor) -> Tensor:
        return x * torch.tensor([column / 100 for column in range(int(x.shape[3]))])


class Branched(Plain):
    """Does something else with images of fewer than six rows."""

    def between(self, x: Tensor) -> Tensor:
        return x + 0.5 if x.shape[2] < 6 else x


class Mirrored(Plain):
    """Extends images by four mirrored pixels, which takes sides of at least five."""

    def between(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (4, 4, 4, 4), mode="reflect"), 9, 1)


class Waves(Plain):
    """Has an op that only the newer of torch's exporters knows."""

    def between(self, x: Tensor) -> Tensor:
        return x + torch.fft.rfft2(x).real.mean() / 1000


class Noisy(Plain):
    """Gives something else every time."""

    def between(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Bessel(Plain):
    """Has an op that no format knows."""

    def between(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Normed(Plain):
    """Gives something else in training mode, and then changes its statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.norm.running_mean = torch.full((8,), 0.5)

    def between(self, x: Tensor) -> Tensor:
        return self.norm(F.dropout(x, 0.5, self.training))

"""s-LWSR (Li et al., arXiv 1909.10774): residual blocks in a U-shaped line, an information pool.

The paper's own compression puts inverted residual blocks (MobileNetV2) in the place of residual
blocks. The released code holds none, so their form is inferred: of the forms that were tried, only
MobileNetV2's block at expansion 1 (where it has no first 1x1 convolution), without biases and
normalisation, gives the 124K parameters that the paper reports for 32 features with all blocks
compressed: 124,347. With biases it has 126,011, with batch normalisation 127,675, with a first 1x1
convolution at least 150,971. ReLU stands for MobileNetV2's ReLU6, whose bound at 6 is for
normalised features and low precision.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from drc.core.errors import UsageError
from drc.networks.registry import Preset, register
from drc.networks.zoo.layers import MeanShift, Residual, conv3x3, shuffle_tail

_DOWN, _UP = range(2, 6), range(7, 11)
BLOCKS = (
    *(f"feat{stage}_{part}" for stage in _DOWN for part in (1, 2, 3)),
    *("feat6_1", "feat6_2"),
    *(name for stage in _UP for name in (f"feat{stage}_1", f"feat{stage}_2", f"conv{stage}")),
)
"""The names of the blocks, in the order in which an image goes through them."""
_FUSING = tuple(f"feat{stage}_1" for stage in _UP)


class FusingBlock(nn.Module):
    """A 1x1 convolution that halves the channels, and a residual block around its result."""

    def __init__(self, channels: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 1)
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.body(x)


class SLWSR(nn.Module):
    """The network and its compressed forms.

    Input: `(N, 3, H, W)`, values 0..`value_range`, any size. Output: the SR image,
    `(N, 3, H * scale, W * scale)`.

    Args:
        n_feats: channels of every block.
        scale: a power of two, or 3.
        inverted: names out of `BLOCKS` that are inverted residual blocks; True for all of them.
        expansion: channels inside an inverted block over `n_feats`.
        activations_removed: share of the blocks without activation, 0 to 1, spread evenly.
        pool: whether the skips are mixed half and half with the information pool.
        value_range: the largest pixel value.

    Raises:
        UsageError: another scale, an unknown block, an expansion below 1 or a share outside 0..1.
    """

    def __init__(
        self,
        n_feats: int,
        scale: int = 4,
        inverted: bool | Collection[str] = False,
        expansion: int = 1,
        activations_removed: float = 0.0,
        pool: bool = True,
        value_range: float = 255.0,
    ) -> None:
        super().__init__()
        if expansion < 1:
            raise UsageError(f"expansion is {expansion}; an inverted block takes 1 or more")
        self.scale, self.value_range = scale, float(value_range)
        self.sub_mean = MeanShift(value_range, -1)
        self.add_mean = MeanShift(value_range, 1)
        self.head = nn.Sequential(conv3x3(3, n_feats))
        chosen, bare = _chosen(inverted), _spread(activations_removed)
        for name in BLOCKS:
            if name == "feat7_1" and pool:  # where the official state dict has it
                self.conv1 = nn.Conv2d(6 * n_feats, n_feats, 1, bias=False)
            layers = _layers(n_feats, expansion if name in chosen else 0, name not in bare)
            block = FusingBlock(n_feats, layers) if name in _FUSING else Residual(*layers)
            self.add_module(name, block)
        self.pool = pool
        self.tail = shuffle_tail(scale, n_feats)

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.head(self.sub_mean(x))
        pooled, skips = [first], []
        for stage in _DOWN:
            x = begin = self._run(x, f"feat{stage}_1")
            if stage > _DOWN[0]:
                pooled.append(begin)
            x = self._run(x, f"feat{stage}_2", f"feat{stage}_3")
            skips.append(x)
            x = begin + x
        for name in ("feat6_1", "feat6_2"):
            x = self._run(x, name)
            pooled.append(x)
        if self.pool:
            mixed = 0.5 * self.conv1(torch.cat(pooled, 1))
            skips = [0.5 * skip + mixed for skip in skips]
        for stage in _UP:
            both = torch.cat((x, skips.pop()), 1)
            x = self._run(both, f"feat{stage}_1", f"feat{stage}_2", f"conv{stage}")
        return self.add_mean(self.tail(first + x))

    def _run(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


def _layers(channels: int, expansion: int, active: bool) -> list[nn.Module]:
    """The branch of one block: plain for expansion 0, else inverted, without biases.

    Without activation an identity keeps the names of the weights as they are.
    """

    def act() -> nn.Module:
        return nn.ReLU(inplace=True) if active else nn.Identity()

    if not expansion:
        return [conv3x3(channels, channels), act(), conv3x3(channels, channels)]
    inside = expansion * channels
    expand = [nn.Conv2d(channels, inside, 1, bias=False), act()] if expansion > 1 else []
    depthwise = nn.Conv2d(inside, inside, 3, padding=1, groups=inside, bias=False)
    return [*expand, depthwise, act(), nn.Conv2d(inside, channels, 1, bias=False)]


def _chosen(inverted: bool | Collection[str]) -> frozenset[str]:
    if isinstance(inverted, bool):
        return frozenset(BLOCKS if inverted else ())
    names = frozenset([inverted] if isinstance(inverted, str) else inverted)
    unknown = sorted(names.difference(BLOCKS))
    if unknown:
        raise UsageError(f"s-LWSR has no block {unknown[0]!r}; its blocks are {', '.join(BLOCKS)}")
    return names


def _spread(share: float) -> frozenset[str]:
    """That share of the blocks, rounded, at even distances."""
    if not 0 <= share <= 1:
        raise UsageError(f"activations_removed is {share}; it is a share from 0 to 1")
    total, count = len(BLOCKS), round(share * len(BLOCKS))
    return frozenset(
        name
        for index, name in enumerate(BLOCKS)
        if (index + 1) * count // total > index * count // total
    )


for _features in (16, 32, 64):
    register(
        Preset(
            name=f"slwsr{_features}",
            build=SLWSR,
            arguments={scale: {"n_feats": _features} for scale in (2, 3, 4)},
            value_range=255.0,
        )
    )

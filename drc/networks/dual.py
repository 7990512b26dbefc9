"""The dual model D: HR image -> LR image, the second half of the dual regression loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from drc.core.errors import UsageError


class DownStep(nn.Module):
    """One 2x reduction: 3x3 conv stride 2, LeakyReLU 0.2, 3x3 conv; neither conv has a bias.

    DRN is built of the same step on its way down, so both share the published parameter names.
    """

    def __init__(self, inputs: int, width: int, outputs: int, stride: int = 2) -> None:
        super().__init__()
        self.dual_module = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False),
                nn.LeakyReLU(0.2, inplace=True),
            ),
            nn.Conv2d(width, outputs, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.dual_module(x)


class DualModel(nn.Module):
    """A chain of downsampling steps, one per 2x (or 3x) of the scale, without biases.

    `forward` takes a network's outputs. A pyramid (list of `(N, C, h, w)` tensors, coarse to
    fine, one more than there are steps) sends each level through the step below it and gives
    one image per step; a single SR image goes through all steps and gives the LR image.
    Values are in the range of the network that it accompanies.

    Args:
        scale: a product of twos and threes.
        width: channels inside each step, 16 in the papers.
        channels: C, of the images.

    Raises:
        UsageError: another scale.
    """

    def __init__(self, scale: int, width: int = 16, channels: int = 3) -> None:
        super().__init__()
        self.scale = scale
        self.steps = nn.ModuleList(
            DownStep(channels, width, channels, stride=stride) for stride in _strides(scale)
        )

    def forward(self, outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Return the predicted coarser images, coarse to fine; the first is the LR image."""
        if isinstance(outputs, Tensor):
            return [self._chain(outputs)]
        if len(outputs) == len(self.steps) + 1:
            return [step(x) for step, x in zip(self.steps, outputs[1:], strict=True)]
        return [self._chain(outputs[-1])]

    def _chain(self, x: Tensor) -> Tensor:
        for step in reversed(self.steps):
            x = step(x)
        return x


class ChainDual(nn.Module):
    """The dual model of SwinIR-DR, DAT-DR and DCLS-DRC: one chain for all steps, without biases.

    `forward` takes an SR image `(N, C, H, W)`, or a pyramid of which it takes the last, and gives
    a list of one image, `(N, C, H / scale, W / scale)`. Values are in the range of the network.

    Args:
        scale: a product of twos and threes.
        width: channels inside, 16 in the paper.
        channels: C, of the images.

    Raises:
        UsageError: another scale.
    """

    def __init__(self, scale: int, width: int = 16, channels: int = 3) -> None:
        super().__init__()
        self.scale = scale
        strides = _strides(scale)
        inputs = [channels] + [width] * (len(strides) - 1)
        steps = [
            nn.Sequential(
                nn.Conv2d(count, width, 3, stride=stride, padding=1, bias=False),
                nn.LeakyReLU(0.2, inplace=True),
            )
            for count, stride in zip(inputs, strides, strict=True)
        ]
        self.dual_module = nn.Sequential(
            *steps, nn.Conv2d(width, channels, 3, padding=1, bias=False)
        )

    def forward(self, outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Return the LR image given back, in a list."""
        final = outputs if isinstance(outputs, Tensor) else outputs[-1]
        return [self.dual_module(final)]


AnyDual = DualModel | ChainDual

PREFIX = "dual_model."
"""Of the dual model's names in a checkpoint that holds both networks."""


def _strides(scale: int) -> list[int]:
    strides, rest = [], scale
    for prime in (2, 3):
        while rest % prime == 0:
            strides.append(prime)
            rest //= prime
    if rest != 1 or scale < 2:
        raise UsageError(
            f"a dual model needs a scale made of twos and threes, not {scale}; dual_weight 0 works "
            "without one (in a settings file: search.dual_weight, recovery.dual_weight or "
            "train.dual_weight)"
        )
    return strides

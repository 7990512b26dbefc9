"""The dual model D: HR image -> LR image, the second half of the dual regression loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from drc.core.errors import UsageError, WeightsError
from drc.networks.checkpoints import differences, read_file, shapes, state_dict_of


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

FILENAME = "dual.safetensors"
"""What runs call the file of their dual model."""


def dual_with(weights: Path | str, scale: int, channels: int = 3) -> tuple[AnyDual, str] | None:
    """The dual model that comes with a network's checkpoint, and where it was, in words.

    It is inside the checkpoint, or in a file `dual.safetensors` beside it, as `drc train` leaves
    it. None where there is neither.

    Raises:
        WeightsError: as `load_dual`.
    """
    inside = dual_in(weights, scale, channels)
    if inside is not None:
        return inside, "in the weights file"
    path = Path(weights).parent / FILENAME
    if path.is_file():
        return load_dual(path, scale, channels), "beside the weights file"
    return None


def dual_in(path: Path | str, scale: int, channels: int = 3) -> AnyDual | None:
    """The dual model that a network's checkpoint holds besides, or None.

    Raises:
        WeightsError: as `load_dual`.
    """
    content = read_file(Path(path))
    state = _inside(state_dict_of(content, path)) if isinstance(content, Mapping) else {}
    return _dual_of(state, path, scale, channels) if state else None


def load_dual(path: Path | str, scale: int, channels: int = 3) -> AnyDual:
    """Read a dual model: an official list with one state dict per step, a saved one, or that in a
    checkpoint of both networks.

    The width inside is read off the weights.

    Args:
        path: the file.
        scale: HR side over LR side.
        channels: of the images that it is for.

    Raises:
        WeightsError: as `read_checkpoint`, or the file holds no dual model of this scale.
    """
    content = read_file(Path(path))
    if isinstance(content, (list, tuple)):
        state = {
            f"steps.{index}.{key}": tensor
            for index, step in enumerate(content)
            for key, tensor in state_dict_of(step, path).items()
        }
    else:
        state = state_dict_of(content, path)
        state = _inside(state) or state
    return _dual_of(state, path, scale, channels)


def _inside(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to the dual model in a checkpoint of both networks."""
    return {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


def _dual_of(state: Mapping[str, Tensor], path: Path | str, scale: int, channels: int) -> AnyDual:
    """A dual model with these weights, of the kind and width that their names and shapes show."""
    kinds: dict[str, type[DualModel] | type[ChainDual]] = {
        "steps.0.dual_module.0.0.weight": DualModel,
        "dual_module.0.0.weight": ChainDual,
    }
    name = next((name for name in kinds if name in state and state[name].ndim == 4), None)
    if name is None:
        raise WeightsError(f"{path} holds no dual model; its names begin {list(state)[:1]}")
    dual = kinds[name](scale, width=state[name].shape[0], channels=channels)
    expected, found = shapes(dual), shapes(state)
    if found != expected:
        images = f"x{scale}" if channels == 3 else f"x{scale} and {channels}-channel images"
        raise WeightsError(f"{path} is no dual model for {images}: {differences(expected, found)}")
    dual.load_state_dict(state)
    return dual.eval()


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

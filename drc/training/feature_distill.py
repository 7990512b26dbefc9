"""Distillation from features: the layers of a cut network give what they gave before the cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drc.core.errors import UsageError
from drc.core.runtime import eval_mode, forward_hooks
from drc.graph.inputs import example_input
from drc.graph.surgery import get_cut
from drc.networks.traits import get_traits

MOST_COMPARED = 8
"""The most layers compared, so that the cost of the comparison stays small."""

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED, nn.Linear)
_UNFIT = (
    "the layers of the teacher are not those of the network, so features cannot be compared; set "
    "recovery.features to 0, or let the dense network teach"
)

Features = dict[str, Tensor]


@dataclass(frozen=True)
class ComparedLayer:
    """A layer whose output is compared.

    Attributes:
        name: of the layer, in both networks.
        dim: of its output, that of the channels.
        kept: the channels of the teacher's layer that the network's has; None for all.
    """

    name: str
    dim: int
    kept: Tensor | None


class FeatureDistillation:
    """Squared error between the outputs of a cut network's layers and its dense form's.

    Compared are layers that read fewer channels than before, up to `MOST_COMPARED` of them spread
    evenly over the forward pass: their outputs show what the cut has changed, and those channels
    of them that are left would be the same if nothing was lost. The error of a layer is divided
    by the variance of the teacher's output, so that 0.1 means a tenth of the power of the signal
    in any network.

    Args:
        student: the network that is trained, without wrappers.
        teacher: its dense form.

    Raises:
        UsageError: the teacher is another kind of network, so its layers cannot be compared, or
            there is none.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if teacher is None:
            raise UsageError("recovery.features compares with a teacher, and there is none")
        self.student, self.teacher = student, teacher
        self.layers = compared_layers(student, teacher)
        self._ours: Features = {}
        self._theirs: Features = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take down what the layers of both networks give inside the block."""
        names = [layer.name for layer in self.layers]
        with recorded(self.student, names) as self._ours, recorded(self.teacher, names) as theirs:
            self._theirs = theirs
            yield

    def __call__(self) -> Tensor:
        """The loss of the passes last watched, a scalar without unit: the mean over the layers."""
        losses = []
        for layer in self.layers:
            ours, theirs = self._ours.pop(layer.name).float(), self._theirs.pop(layer.name).float()
            if layer.kept is not None:
                theirs = theirs.index_select(layer.dim, layer.kept)
            error, power = (ours - theirs).square().mean(), theirs.var(correction=0)
            # A layer that is still all zeros has nothing to teach.
            losses.append(torch.where(power > 0, error / power.clamp_min(1e-20), 0 * error))
        return torch.stack(losses).mean()


@contextmanager
def recorded(model: nn.Module, names: list[str]) -> Iterator[Features]:
    """Collect the outputs of the named modules, in the order they are last called."""
    found: Features = {}

    def record(name: str, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            found.pop(name, None)
            found[name] = output

    with forward_hooks({name: model.get_submodule(name) for name in names}, record):
        yield found


def compared_layers(student: nn.Module, teacher: nn.Module) -> list[ComparedLayer]:
    """The layers to compare, in the order of the forward pass.

    Raises:
        UsageError: the layers of the two networks do not correspond.
    """
    if [n for n, _ in student.named_modules()] != [n for n, _ in teacher.named_modules()]:
        raise UsageError(_UNFIT)
    names = [name for name, module in student.named_modules() if isinstance(module, _LAYERS)]
    image = example_input(student, get_traits(student).channels)
    outputs = []
    for model in (student, teacher):
        with eval_mode(model), torch.no_grad(), recorded(model, names) as found:
            model(image)
        outputs.append(found)
    ours, theirs = outputs
    pixels = image.shape[-2] * image.shape[-1]
    layers = [
        layer
        for name, output in ours.items()
        # Squeezed features, such as the weights of channel attention, say little.
        if output.numel() >= pixels
        and name in theirs
        and (layer := _compared(student, name, output.shape, theirs[name].shape)) is not None
    ]
    cut = [x for x in layers if _inputs(student, x.name) < _inputs(teacher, x.name)] or layers
    if not cut:
        raise UsageError(_UNFIT)
    count = min(MOST_COMPARED, len(cut))
    return [cut[(2 * i + 1) * len(cut) // (2 * count)] for i in range(count)]


def _compared(
    student: nn.Module, name: str, ours: torch.Size, theirs: torch.Size
) -> ComparedLayer | None:
    """How the outputs of a layer, of these shapes, are compared; None where they cannot be."""
    layer = student.get_submodule(name)
    dim = len(ours) - 1 if isinstance(layer, nn.Linear) else 1
    if ours == theirs:
        return ComparedLayer(name, dim, None)
    cut = get_cut(student)
    outputs = 1 if isinstance(layer, _TRANSPOSED) else 0
    kept = cut.kept.get(f"{name}.weight", {}).get(outputs) if cut is not None else None
    expected = list(theirs)
    if kept is None or len(ours) != len(theirs) or max(kept) >= theirs[dim]:
        return None
    expected[dim] = len(kept)
    if expected != list(ours):
        return None
    return ComparedLayer(name, dim, torch.tensor(kept, device=next(layer.parameters()).device))


def _inputs(model: nn.Module, name: str) -> int:
    """How many channels a layer reads."""
    layer = model.get_submodule(name)
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)  # type: ignore[arg-type]

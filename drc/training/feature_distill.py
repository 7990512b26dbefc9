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
from drc.training.distill import Teacher

PLACES = 8
"""The most layers compared, so that the cost of the comparison stays small."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Place:
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

    Compared are layers that read fewer channels than before, up to `PLACES` of them spread
    evenly over the forward pass: their outputs show what the cut has changed, and those channels
    of them that are left would be the same if nothing was lost. The error of a layer is divided
    by the variance of the teacher's output, so that 0.1 means a tenth of the power of the signal
    in any network.

    Args:
        student: the network that is trained, without wrappers.
        teacher: its dense form.

    Raises:
        UsageError: the teacher is another kind of network, so its layers cannot be compared.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        self.student, self.teacher = student, teacher
        self.places = find_places(student, teacher)
        self._ours: Features = {}
        self._theirs: Features = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take down what the layers of both networks give inside the block."""
        names = [place.name for place in self.places]
        with recorded(self.student, names) as self._ours, recorded(self.teacher, names) as theirs:
            self._theirs = theirs
            yield

    def __call__(self) -> Tensor:
        """The loss of the passes last watched, a scalar without unit: the mean over the layers."""
        losses = []
        for place in self.places:
            ours, theirs = self._ours.pop(place.name).float(), self._theirs.pop(place.name).float()
            if place.kept is not None:
                theirs = theirs.index_select(place.dim, place.kept)
            error, power = (ours - theirs).square().mean(), theirs.var(correction=0)
            # A layer that is still all zeros has nothing to teach.
            losses.append(torch.where(power > 0, error / power.clamp_min(1e-20), 0 * error))
        return torch.stack(losses).mean()


def compare(student: nn.Module, teacher: Teacher | None) -> FeatureDistillation:
    """The distillation between the two. Raises UsageError, also where there is no teacher."""
    if teacher is None:
        raise UsageError("recovery.features compares with a teacher, and there is none")
    return FeatureDistillation(student, teacher.network)


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


def find_places(student: nn.Module, teacher: nn.Module) -> list[Place]:
    """The layers to compare, in the order of the forward pass. Raises as `FeatureDistillation`."""
    if [n for n, _ in student.named_modules()] != [n for n, _ in teacher.named_modules()]:
        raise UsageError(_UNFIT)
    layers = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)
    names = [name for name, module in student.named_modules() if isinstance(module, layers)]
    image = example_input(student, get_traits(student).channels)
    sizes = []
    for model in (student, teacher):
        with eval_mode(model), torch.no_grad(), recorded(model, names) as found:
            model(image)
        sizes.append({name: output.shape for name, output in found.items()})
    ours, theirs = sizes
    pixels = image.shape[-2] * image.shape[-1]
    places, reads_less = [], set()
    for name, size in ours.items():
        place = _place(student, name, size, theirs.get(name, torch.Size()))
        # Squeezed features, such as the weights of channel attention, say little.
        if place is not None and size.numel() >= pixels:
            places.append(place)
            if _read(student, name) < _read(teacher, name):
                reads_less.add(name)
    places = [place for place in places if place.name in reads_less] or places
    if not places:
        raise UsageError(_UNFIT)
    count = min(PLACES, len(places))
    return [places[(2 * i + 1) * len(places) // (2 * count)] for i in range(count)]


_UNFIT = (
    "the layers of the teacher are not those of the network, so features cannot be compared; set "
    "recovery.features to 0, or let the dense network teach"
)


def _place(student: nn.Module, name: str, ours: torch.Size, theirs: torch.Size) -> Place | None:
    layer = student.get_submodule(name)
    channels = 0 if not isinstance(layer, _TRANSPOSED) else 1
    dim = len(ours) - 1 if isinstance(layer, nn.Linear) else 1
    if ours == theirs:
        return Place(name, dim, None)
    cut = get_cut(student)
    kept = cut.kept.get(f"{name}.weight", {}).get(channels) if cut is not None else None
    expected = list(ours)
    if kept is None or len(ours) != len(theirs) or max(kept) >= theirs[dim]:
        return None
    expected[dim] = theirs[dim]
    if len(kept) != ours[dim] or expected != list(theirs):
        return None
    return Place(name, dim, torch.tensor(kept, device=next(layer.parameters()).device))


def _read(model: nn.Module, name: str) -> int:
    layer = model.get_submodule(name)
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)  # type: ignore[arg-type]

"""Distillation from the teacher's images: the compressed network learns to repeat them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drc.core.errors import ModelError, UsageError
from drc.networks.copying import float_copy_of
from drc.networks.traits import Traits, final_output, get_traits
from drc.settings import RecoverySettings
from drc.training.losses import Outputs, full_precision, level_loss


class Teacher:
    """A network whose images another one learns to repeat; it is copied and never trained.

    Args:
        network: usually the network before pruning.
        device: where the copy goes; None for the network's own.
        memory_format: of the copy.
        factor: what to multiply images with before they go in; those that come out are divided
            by it. A teacher for 0..255 of a network for 0..1 needs 255.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device | None = None,
        memory_format: torch.memory_format = torch.preserve_format,
        factor: float = 1.0,
    ) -> None:
        self.network = float_copy_of(network, device, memory_format).eval().requires_grad_(False)
        self.factor = factor

    @torch.no_grad()
    def __call__(self, lr: Tensor) -> Outputs:
        """Its images of a batch `(N, 3, h, w)`, float32, in the range of the batch."""
        if self.factor == 1:
            return full_precision(self.network(lr))
        outputs = full_precision(self.network(lr * self.factor))
        if isinstance(outputs, Tensor):
            return outputs / self.factor
        return [image / self.factor for image in outputs]


def teacher_factor(student: Traits, teacher: nn.Module) -> float:
    """The `factor` of a `Teacher` for a network with these traits.

    Raises:
        UsageError: the teacher enlarges by another scale, or is for other channels.
    """
    traits = get_traits(teacher)
    for what, ours, theirs in (
        ("scale", student.scale, traits.scale),
        ("number of image channels", student.channels, traits.channels),
    ):
        if ours != theirs:
            raise UsageError(
                f"the teacher's {what} is {theirs}, the network's {ours}; use a teacher of the "
                f"same {what}"
            )
    return traits.value_range / student.value_range


def in_words(teacher: nn.Module | str, settings: RecoverySettings) -> str:
    """Who teaches, for a report."""
    if not (settings.distill or settings.features):
        return "no teacher"
    if isinstance(teacher, str):
        return f"teacher: {teacher}"
    return f"teacher: {get_traits(teacher).preset or type(teacher).__name__}"


def require_weight(settings: RecoverySettings) -> None:
    """Raise UsageError if a teacher would have no say."""
    if not (settings.distill or settings.features):
        raise UsageError(
            "a teacher has no say while distill and features are 0; set one of them, such as "
            "train.distill 1 in a settings file"
        )


def output_loss(outputs: Outputs, wanted: Outputs) -> Tensor:
    """L1 between a network's images and its teacher's, a scalar in units of the pixel range.

    Two pyramids of equal sizes are compared level by level and the levels added; otherwise the
    SR images alone are compared.

    Raises:
        ModelError: the teacher's SR image has another size.
    """
    single = isinstance(outputs, Tensor) or isinstance(wanted, Tensor)
    if single or [x.shape for x in outputs] != [x.shape for x in wanted]:
        outputs, wanted = [final_output(outputs)], [final_output(wanted)]
        if outputs[0].shape != wanted[0].shape:
            raise ModelError(
                f"the teacher's image is {tuple(wanted[0].shape)}, the network's "
                f"{tuple(outputs[0].shape)}; use a teacher of the same scale"
            )
    return level_loss(outputs, wanted)

"""The losses against values worked by hand, for pyramids and for single images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from drc.core.errors import ModelError, UsageError
from drc.networks.dual import DualModel
from drc.settings import RecoverySettings
from drc.training.distill import Teacher, output_loss
from drc.training.losses import dual_loss, dual_regression_loss, level_loss, pyramid_targets
from drc.training.objective import TERMS, Objective


def flat(value: float, side: int) -> torch.Tensor:
    return torch.full((2, 3, side, side), float(value))


def picking_dual(scale: int) -> DualModel:
    """Takes the first pixel of each block and keeps its colour, at every step."""
    dual = DualModel(scale, width=3).requires_grad_(False)
    centre = torch.zeros(3, 3, 3, 3)
    centre[range(3), range(3), 1, 1] = 1
    for parameter in dual.parameters():
        parameter.copy_(centre)
    return dual


class Constant(nn.Module):
    """Answers with fixed images, as a network that has learnt nothing else."""

    def __init__(self, *images: torch.Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, lr: torch.Tensor) -> list[torch.Tensor] | torch.Tensor:
        return list(self.images) if len(self.images) > 1 else self.images[0]


LR, HR = flat(1, 8), flat(4, 32)
PYRAMID = [flat(3, 8), flat(5, 16), flat(10, 32)]


def test_targets_are_lr_then_shrunk_hr_then_hr() -> None:
    targets = pyramid_targets(PYRAMID, LR, HR, 255.0)
    assert [float(x.mean()) for x in targets] == [1, 4, 4]
    assert targets[0] is LR and targets[2] is HR
    (single,) = pyramid_targets(PYRAMID[-1], LR, HR, 255.0)
    assert single is HR


def test_a_network_of_scale_one_is_compared_with_hr() -> None:
    (target,) = pyramid_targets(flat(2, 8), LR, flat(4, 8), 255.0)
    assert float(target.mean()) == 4


@pytest.mark.parametrize("shape", [(32, 24), (30, 30), (64, 64)])
def test_an_output_of_a_wrong_size_is_named(shape: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match=f"{shape[0]}x{shape[1]} image for a 32x32"):
        pyramid_targets(torch.zeros(2, 3, *shape), LR, HR, 255.0)


def test_level_loss_adds_the_levels() -> None:
    targets = pyramid_targets(PYRAMID, LR, HR, 255.0)
    assert float(level_loss(PYRAMID, targets)) == 2 + 1 + 6
    assert float(level_loss(PYRAMID[-1], [HR])) == 6


def test_dual_loss_of_a_pyramid_and_of_one_image() -> None:
    targets = pyramid_targets(PYRAMID, LR, HR, 255.0)
    # 16 -> 8: |5 - 1|; 32 -> 16: |10 - 4|.
    dual = picking_dual(4)
    assert float(dual_loss(dual, PYRAMID, LR, targets)) == 4 + 6
    # The whole chain, 32 -> 8: |10 - 1|.
    assert float(dual_loss(dual, PYRAMID[-1], LR, [HR])) == 9


def test_dual_loss_at_x3_follows_the_chain() -> None:
    assert float(dual_loss(picking_dual(3), flat(7, 24), LR, [flat(4, 24)])) == 6


def test_dual_loss_keeps_the_gradient_of_the_network() -> None:
    output = flat(10, 32).requires_grad_()
    dual_loss(picking_dual(4), output, LR, [HR]).backward()
    # Only the picked pixels matter, each for one of 2 * 3 * 8 * 8 LR values.
    assert output.grad is not None
    assert float(output.grad[0, 0, 0, 0]) == pytest.approx(1 / 384)
    assert float(output.grad[0, 0, 1, 0]) == 0


def test_whole_loss_weighs_the_dual_part() -> None:
    loss = dual_regression_loss(PYRAMID, LR, HR, picking_dual(4), 255.0, weight=0.1)
    assert float(loss) == pytest.approx(9 + 0.1 * 10)
    assert float(dual_regression_loss(PYRAMID, LR, HR, None, 255.0)) == 9


def test_distillation_compares_every_level_they_share() -> None:
    student = [flat(3, 8), flat(5, 16), flat(10, 32)]
    same_levels = [flat(3, 8), flat(6, 16), flat(12, 32)]
    assert float(output_loss(student, same_levels)) == 0 + 1 + 2
    one_image = flat(13, 32)
    assert float(output_loss(student, one_image)) == 3
    assert float(output_loss(student[-1], one_image)) == 3


def test_a_teacher_of_another_scale_is_refused() -> None:
    with pytest.raises(ModelError, match="use a teacher of the same scale"):
        output_loss(PYRAMID, flat(1, 16))


def test_the_teacher_is_copied_and_frozen() -> None:
    teacher = nn.Conv2d(3, 3, 3, padding=1).train()
    own = Teacher(teacher)
    output = torch.zeros(1, 3, 8, 8, requires_grad=True)
    output_loss(output, own(torch.ones(1, 3, 8, 8))).backward()
    assert output.grad is not None and teacher.weight.grad is None
    assert not own.network.training and own.network is not teacher
    assert teacher.training and teacher.weight.requires_grad


def test_objective_weighs_its_terms() -> None:
    settings = RecoverySettings(primal=2.0, distill=0.5, dual_weight=0.1)
    teacher = Teacher(Constant(flat(3, 8), flat(6, 16), flat(12, 32)))
    objective = Objective(settings, 255.0, teacher, picking_dual(4))
    terms = dict(zip(TERMS, objective(Constant(*PYRAMID), LR, HR).tolist(), strict=True))
    assert terms["primal"] == 9 and terms["distill"] == 3 and terms["dual"] == 10
    assert terms["loss"] == pytest.approx(2 * 9 + 0.5 * 3 + 0.1 * 10)


def test_terms_without_weight_or_model_are_zero() -> None:
    settings = RecoverySettings(distill=0.0, dual_weight=0.0)
    objective = Objective(settings, 255.0, Teacher(Constant(flat(0, 32))), picking_dual(4))
    assert objective(Constant(*PYRAMID), LR, HR).tolist() == [9, 9, 0, 0, 0, 0]


def test_an_objective_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="every loss is off"):
        Objective(RecoverySettings(primal=0.0), 255.0, None, None)

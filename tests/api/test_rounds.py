"""Compression in two rounds from Python."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks import conv
from torch import Tensor, nn

import drc
from drc.core.errors import BudgetError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.rounds import default_rounds, first_ratio, first_steps, joined, second_ratio
from drc.store.plan import Budget, GroupWidth, Plan, fingerprint

pytestmark = pytest.mark.usefixtures("one_thread")


class Residuals(nn.Module):
    """Three residual blocks and PixelShuffle, x2."""

    scale = 2
    value_range = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(3, 16), conv(16, 12)
        blocks = (nn.Sequential(conv(16, 32), nn.ReLU(), conv(32, 16)) for _ in range(3))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        for block in self.blocks:
            y = y + block(y)
        up = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
        return up + nn.functional.pixel_shuffle(self.tail(y), 2)


def batches() -> list[Any]:
    pairs = bundled_pairs("train")[:1]
    return list(crop_loader(pairs, 2, patch=16, batch=2, steps=2, seed=2))


def params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def compress(model: nn.Module, **options: Any) -> drc.Result:
    values = {"steps": 3, "patches": 4, "dual_steps": 2, "test": None, "device": "cpu", **options}
    return drc.compress(model, batches(), **values)


def plan(before: int, limit: int, ratio: float, **groups: tuple[int, int]) -> Plan:
    budget = Budget(kind="params", ratio=ratio, before=before, limit=limit, predicted=limit)
    return Plan(
        model="net",
        scale=2,
        base_checksum="of the dense one" if before == 100 else "of another",
        strategy="uniform",
        groups={name: GroupWidth(keep=keep, of=of) for name, (keep, of) in groups.items()},
        budget=budget,
        seed=0,
        notes=["both", str(before)],
    )


def test_both_rounds_keep_the_same_share() -> None:
    assert first_ratio(0.75) == 0.5  # half, then half of the half
    first = plan(100, 50, 0.5, a=(8, 16), b=(4, 4))
    assert second_ratio(first, 0.75) == 0.5
    assert second_ratio(plan(100, 40, 0.5, a=(8, 16)), 0.75) == pytest.approx(1 - 25 / 40)
    assert 0 < second_ratio(plan(100, 20, 0.5, a=(8, 16)), 0.75) < 0.01  # done already
    assert [first_steps(n) for n in (2, 3, 300, 301)] == [1, 1, 100, 100]
    with pytest.raises(UsageError, match="1 recovery steps are too few; take 2 or more"):
        first_steps(1)
    assert default_rounds(0.3) == 1


def test_two_plans_become_one_of_the_dense_network() -> None:
    first = plan(100, 50, 0.5, a=(8, 16), b=(4, 4), c=(2, 3))
    second = plan(50, 25, 0.5, a=(4, 8), b=(2, 4))
    both = joined(first, second, 0.75)
    kept = {name: (group.keep, group.of) for name, group in both.groups.items()}
    assert kept == {"a": (4, 16), "b": (2, 4), "c": (2, 3)}
    assert both.base_checksum == "of the dense one" and both.notes == ["both", "100", "50"]
    budget = both.budget
    assert (budget.before, budget.limit, budget.predicted, budget.ratio) == (100, 25, 25, 0.75)


def test_two_rounds_reach_the_budget_of_the_dense_network(tmp_path: Path) -> None:
    model = Residuals().eval()
    before = deepcopy(model.state_dict())
    told: list[tuple[str, int]] = []
    result = compress(
        model, ratio=0.6, rounds=2,
        progress=lambda what, done, total, values: told.append((what, total)),
    )  # fmt: skip
    dense, limit = params(model), int(0.4 * params(model))
    assert 0.95 * limit < params(result.model) <= limit
    assert (result.report.before.params, result.report.after.params) == (
        dense,
        params(result.model),
    )
    assert result.report.plan.ratio == 0.6 and result.report.plan.limit == limit
    assert result.report.plan.predicted == params(result.model)
    assert {total for what, total in told if what == "finetune"} == {1, 2}  # a third, the rest
    steps = ["calibrate", "search", "prune", "finetune"]
    assert list(result.report.steps)[:8] == [f"round 1 {step}" for step in steps] + steps
    assert any("two rounds" in note for note in result.report.notes)
    assert all(map(torch.equal, before.values(), model.state_dict().values()))

    path = tmp_path / "twice.safetensors"
    result.save(path)
    again, image = drc.apply(Residuals(), path), torch.rand(1, 3, 12, 12)
    assert torch.equal(again(image), result.model(image))
    assert result.plan.base_checksum == fingerprint(model)
    small = drc.prune(model, result.plan, importance="l1", device="cpu")
    assert params(small) == params(result.model)


def test_the_original_teaches_in_both_rounds() -> None:
    model, asked = Residuals().eval(), []
    teacher = Residuals().eval()
    teacher.register_forward_hook(lambda module, inputs, output: asked.append(module.training))
    result = compress(model, ratio=0.5, rounds=2, steps=4, teacher=teacher)
    assert asked.count(False) >= 4  # copies of it keep the hook: a pass per step
    assert "teacher: Residuals" in result.report.data.recovery


def test_what_cannot_be_done_is_said_before_any_training() -> None:
    told: list[str] = []
    options = {"progress": lambda what, *rest: told.append(what), "rounds": 2}
    with pytest.raises(BudgetError, match="can be reached"):
        compress(Residuals(), ratio=0.9, min_width=8, **options)
    with pytest.raises(UsageError, match="rounds recover twice"):
        compress(Residuals(), steps=1, **options)
    with pytest.raises(UsageError, match="rounds is 3"):
        compress(Residuals(), rounds=3)
    assert "finetune" not in told

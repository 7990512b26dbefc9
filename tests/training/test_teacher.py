"""Teachers other than the dense network: by value, by name and by file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import drc
from drc.core.errors import UsageError
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.networks.registry import build
from drc.networks.traits import get_traits
from drc.settings import RecoverySettings, RunSettings
from drc.training.distill import Teacher, in_words, output_loss, teacher_factor

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = [8, 8] + [16] * 9 + [20] * 9


class Enlarged(nn.Module):
    """A learnt colour mix of nearest neighbours, or a pyramid of two such images."""

    def __init__(self, scale: int, value_range: float = 1.0, pyramid: bool = False) -> None:
        super().__init__()
        self.scale, self.value_range, self.pyramid = scale, value_range, pyramid
        self.mix = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        mixed = self.mix(x / self.value_range) * self.value_range
        image = nn.functional.interpolate(mixed, scale_factor=self.scale)
        return [mixed, image] if self.pyramid else image


def batches(scale: int) -> Any:
    pairs = bundled_pairs("train")[:1]
    return list(crop_loader(pairs, scale, patch=8, batch=2, steps=2, seed=2))


def settings(**changes: Any) -> RecoverySettings:
    return RecoverySettings(**{"steps": 2, "batch": 2, "patch": 8, "warmup": 0, **changes})


@pytest.mark.parametrize("pyramid", [False, True])
def test_a_teacher_of_another_range_gives_images_of_the_networks(pyramid: bool) -> None:
    student, teacher = Enlarged(2, 1.0, pyramid), Enlarged(2, 255.0, pyramid)
    teacher.load_state_dict(student.state_dict())
    factor = teacher_factor(get_traits(student), teacher)
    assert factor == 255
    lr = torch.rand(1, 3, 8, 8)
    assert output_loss(student(lr), Teacher(teacher, factor=factor)(lr)).item() < 1e-6
    shown: list[dict[str, float]] = []
    drc.finetune(
        student, batches(2), settings=settings(steps=1), teacher=teacher, device="cpu",
        progress=lambda what, done, total, values: shown.append(values),
    )  # fmt: skip
    assert shown[0]["distill"] < 1e-6 < shown[0]["primal"]


def test_another_scale_or_colour_is_refused_before_the_work() -> None:
    ours = get_traits(Enlarged(2))
    with pytest.raises(UsageError, match="teacher's scale is 3, the network's 2"):
        teacher_factor(ours, Enlarged(3))
    luma = nn.Sequential(nn.Conv2d(1, 4, 1), nn.PixelShuffle(2))
    with pytest.raises(UsageError, match="number of image channels is 1, the network's 3"):
        teacher_factor(ours, luma)
    with pytest.raises(UsageError, match="teacher's scale is 3"):
        drc.finetune(Enlarged(2), iter([]), teacher=Enlarged(3), device="cpu")


def test_the_settings_may_name_the_teacher(tmp_path: Path) -> None:
    student = build("drn_tiny", widths=WIDTHS)
    teacher = drc.create_model("drn_tiny", weights="default")
    path = tmp_path / "teacher.safetensors"
    save_file(teacher.state_dict(), path)
    given = drc.finetune(student, batches(4), teacher=teacher, settings=settings(), device="cpu")
    alone = drc.finetune(student, batches(4), settings=settings(), device="cpu")
    for name in ("drn_tiny", str(path)):
        named = drc.finetune(student, batches(4), settings=settings(teacher=name), device="cpu")
        assert all(map(torch.equal, named.state_dict().values(), given.state_dict().values()))
        assert not all(map(torch.equal, named.state_dict().values(), alone.state_dict().values()))
    with pytest.raises(UsageError, match="drn_tyni"):
        drc.finetune(student, batches(4), settings=settings(teacher="drn_tyni"), device="cpu")
    off = settings(teacher="drn_tyni", distill=0.0)  # who teaches nothing is not looked for
    drc.finetune(student, batches(4), settings=off, device="cpu")


def test_files_become_absolute_and_names_stay(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    def teacher(name: str) -> str | None:
        return RunSettings.model_validate({"recovery": {"teacher": name}}).recovery.teacher

    assert teacher("drn_l") == "drn_l" and teacher("my.code:make") == "my.code:make"
    assert teacher("big.pth") == str(tmp_path / "big.pth")
    assert teacher("nets/big") == str(tmp_path / "nets" / "big")
    assert teacher("code.py:make") == f"{tmp_path / 'code.py'}:make"


def test_reports_say_who_taught() -> None:
    assert in_words(Enlarged(2), settings()) == "teacher: Enlarged"
    assert in_words(build("drn_tiny"), settings()) == "teacher: drn_tiny"
    assert in_words("the dense network", settings()) == "teacher: the dense network"
    assert in_words("x.pth", settings(distill=0.0)) == "no teacher"
    assert in_words("x.pth", settings(distill=0.0, features=0.1)) == "teacher: x.pth"

"""Distillation from features: worked by hand on small networks, and inside the training loop."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drc.core.errors import RunError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.networks.registry import build
from drc.settings import RecoverySettings
from drc.training.feature_distill import MOST_COMPARED, FeatureDistillation, compared_layers
from drc.training.loop import TrainingFiles, run_training

pytestmark = pytest.mark.usefixtures("one_thread")


class Chain(nn.Module):
    """Three 1x1 convolutions in a row, of 4 channels in between."""

    scale = 1
    value_range = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.three = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.three(torch.relu(self.two(torch.relu(self.one(x)))))


class Pair(nn.Module):
    """Four copies of the red channel, and their sum as every colour."""

    scale = 1
    value_range = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 3, 1, bias=False)
        with torch.no_grad():
            self.one.weight.zero_()[:, 0] = 1
            self.two.weight.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


def smaller(model: nn.Module, **keep: list[int]) -> nn.Module:
    return cut(model, trace(model, torch.rand(1, 3, 8, 8)), keep)


def cut_drn() -> tuple[nn.Module, nn.Module]:
    """drn_tiny on its trained weights, and the same with half of every block's channels."""
    import drc

    dense = drc.create_model("drn_tiny", weights="default")
    graph = trace(dense, torch.rand(1, 3, 8, 8))
    inner = [group for group in graph.groups if group.name.endswith("body.0")]
    return dense, cut(dense, graph, {g.name: list(range(0, g.size, 2)) for g in inner})


def batches(scale: int, count: int = 4) -> list[dict[str, Tensor]]:
    pairs = bundled_pairs("train")[:1]
    return list(crop_loader(pairs, scale, patch=8, batch=2, steps=count, seed=2))


def settings(**changes: Any) -> RecoverySettings:
    values = {"steps": 6, "batch": 2, "patch": 8, "warmup": 0, "features": 1.0, **changes}
    return RecoverySettings(**values)


def test_the_loss_is_the_error_over_the_variance() -> None:
    teacher = Pair()
    distillation = FeatureDistillation(smaller(teacher, one=[0, 2]), teacher)
    assert [layer.name for layer in distillation.layers] == ["two"]
    red = torch.zeros(1, 3, 2, 2)
    red[0, 0, 0] = 1
    with distillation.watched():
        assert distillation.student(red).mean() == 1  # 2 copies of a half
        distillation.teacher(red)
    # 2 against 4 on one half of the pixels: mean square 2, variance of 0 and 4 is 4.
    assert distillation().item() == 0.5


def test_channels_are_compared_with_those_they_were() -> None:
    teacher = Chain()
    with torch.no_grad():  # what is cut reaches nothing that stays
        teacher.two.weight[1, [1, 3]] = teacher.two.weight[3, [1, 3]] = 0
        teacher.three.weight[:, [0, 2]] = 0
    student = smaller(teacher, one=[0, 2], two=[1, 3])
    distillation = FeatureDistillation(student, teacher)
    (two, three) = distillation.layers
    assert two.kept is not None and two.kept.tolist() == [1, 3] and three.kept is None
    image = torch.rand(2, 3, 8, 8)
    with distillation.watched():
        student(image), teacher(image)
    assert distillation().item() < 1e-10
    with torch.no_grad():
        student.two.bias += 1
    with distillation.watched():
        student(image), teacher(image)
    assert distillation().item() > 0.1


def test_layers_that_read_less_are_compared_and_nothing_else() -> None:
    dense, student = cut_drn()
    layers = compared_layers(student, dense)
    assert len(layers) == MOST_COMPARED
    # Of sixteen blocks every second; the attention inside them gives one value per channel.
    blocks = [(level, block) for level in (0, 1) for block in range(1, 8, 2)]
    wanted = [f"up_blocks.{level}.{block}.body.2" for level, block in blocks]
    assert [layer.name for layer in layers] == wanted
    assert all(layer.kept is None for layer in layers)


def test_a_layer_of_zeros_teaches_nothing() -> None:
    teacher = Pair()
    student = smaller(teacher, one=[0])
    teacher.two.weight.data.zero_()
    distillation = FeatureDistillation(student, teacher)
    with distillation.watched():
        student(torch.rand(1, 3, 4, 4)), teacher(torch.rand(1, 3, 4, 4))
    loss = distillation()
    loss.backward()
    assert loss.item() == 0 and student.two.weight.grad.isfinite().all()


def test_training_brings_the_features_back() -> None:
    dense, student = cut_drn()
    shown: list[dict[str, float]] = []
    result = run_training(
        student,
        batches(4, 2),
        teacher=dense,
        settings=settings(steps=16, lr=2e-3, primal=0.0, distill=0.0),
        device="cpu",
        progress=lambda what, done, total, values: shown.append(values),
    )
    assert shown[0]["distill"] > 0 and shown[0]["loss"] == pytest.approx(shown[0]["features"])
    assert sum(x["features"] for x in shown[-4:]) < 0.8 * sum(x["features"] for x in shown[:4])
    hooks = [m._forward_hooks for m in (*result.modules(), *dense.modules(), *student.modules())]
    assert not any(hooks)


def test_half_precision_and_both_memory_formats() -> None:
    dense, student = cut_drn()
    for changes in ({"amp": "bf16"}, {"channels_last": False}):
        shown: list[dict[str, float]] = []
        run_training(
            student, batches(4, 1), teacher=dense, settings=settings(steps=1, **changes),
            device="cpu", progress=lambda what, done, total, values, to=shown: to.append(values),
        )  # fmt: skip
        assert 0 < shown[0]["features"] < 255


def test_another_kind_of_teacher_is_refused() -> None:
    data = batches(1)
    with pytest.raises(UsageError, match=r"features cannot be compared; set recovery.features"):
        run_training(Chain(), data, teacher=Pair(), settings=settings(), device="cpu")
    with pytest.raises(UsageError, match="compares with a teacher, and there is none"):
        run_training(Chain(), data, settings=settings(), device="cpu")
    wider = build("drn_s")
    with pytest.raises(UsageError, match="features cannot be compared"):
        compared_layers(build("drn_tiny"), wider)


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    teacher = Chain()
    student, data = smaller(teacher, one=[0, 1], two=[0, 1, 2]), batches(1)
    options = {"teacher": teacher, "settings": settings(), "device": "cpu"}
    whole = run_training(student, data, **options)
    path = tmp_path / "last.ckpt"
    again = TrainingFiles(path, resume=True)

    def stop(what: str, done: int, total: int, values: dict[str, float]) -> None:
        if done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_training(student, data, files=TrainingFiles(path), progress=stop, **options)
    other = {**options, "settings": settings(features=0.5)}
    with pytest.raises(RunError, match=r"features 1\.0 then, 0\.5 now"):
        run_training(student, data, files=again, **other)
    resumed = run_training(student, data, files=again, **options)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])

"""The training loop on real photos and small networks, in this process."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import drc
from drc.core.errors import DataError, ModelError, RunError, TrainingError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.networks.dual import DualModel
from drc.networks.registry import build
from drc.settings import RecoverySettings, TrainSettings
from drc.training.loop import TrainingFiles, run_training
from drc.training.objective import TERMS

WIDTHS = [8, 8] + [16] * 9 + [20] * 9


pytestmark = pytest.mark.usefixtures("one_thread")


class Small(nn.Module):
    """Bicubic upsampling and a learnt correction, 0..1, one image, x3."""

    scale = 3
    value_range = 1.0

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 27, 3, padding=1)]
        self.body = nn.Sequential(*layers, nn.PixelShuffle(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + nn.functional.interpolate(x, scale_factor=3, mode="bicubic")


class Fading(nn.Module):
    """Its loss falls along with `level`, whose square root is NaN once it is negative."""

    scale = 2
    value_range = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.03))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2) + self.level.sqrt()


class Overflowing(nn.Module):
    """Its parameter stands at the end of float32's range and drives nothing."""

    scale = 2
    value_range = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(3.3e38))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2) + (self.level - self.level.detach())


def settings(**changes: Any) -> RecoverySettings:
    values = {"steps": 6, "batch": 2, "patch": 8, "warmup": 0, "log_every": 2, **changes}
    return RecoverySettings(**values)


def batches(scale: int, count: int = 4, patch: int = 8) -> list[dict[str, Tensor]]:
    pairs = bundled_pairs("train")[:1]
    return list(crop_loader(pairs, scale, patch=patch, batch=2, steps=count, seed=2))


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_training_recovers_quality_and_leaves_its_arguments_alone() -> None:
    teacher, student, dual = build("drn_tiny"), build("drn_tiny", widths=WIDTHS), DualModel(4)
    before = [deepcopy(x) for x in (teacher, student, dual)]
    losses: list[float] = []
    result = run_training(
        student,
        batches(4),
        teacher=teacher,
        dual=dual,
        settings=settings(steps=24, lr=5e-3, ema=0.5),
        device="cpu",
        progress=lambda what, done, total, values: losses.append(values["loss"]),
    )
    assert len(losses) == 24
    assert sum(losses[-4:]) < sum(losses[:4])  # the same four batches
    assert all(map(equal, before, (teacher, student, dual)))
    assert not result.training and not equal(result, student)
    # The mean shifts are fixed by design.
    assert torch.equal(result.sub_mean.weight, student.sub_mean.weight)
    assert [p.requires_grad for p in result.parameters()] == [
        p.requires_grad for p in student.parameters()
    ]
    assert all(p.is_contiguous() for p in result.parameters())


def test_a_foreign_single_image_network_at_x3() -> None:
    model = Small()
    losses: list[dict[str, float]] = []
    run_training(
        model,
        batches(3),
        dual=DualModel(3),
        settings=settings(steps=12, lr=1e-2),
        device="cpu",
        progress=lambda what, done, total, values: losses.append(values),
    )
    assert losses[0]["distill"] == 0 and losses[0]["dual"] > 0
    assert losses[-1]["primal"] < losses[3]["primal"]


def test_one_seed_gives_one_network() -> None:
    model = Small()
    first, second = (
        run_training(model, batches(3), settings=settings(), device="cpu", seed=3) for _ in range(2)
    )
    assert equal(first, second)


def test_the_callers_random_numbers_go_on_as_if_nothing_was_trained() -> None:
    model, data = Small(), batches(3)
    state = torch.get_rng_state()
    run_training(model, data, settings=settings(steps=1), device="cpu")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_autocast_trains_float32_weights(amp: str) -> None:
    result = run_training(Small(), batches(3), settings=settings(amp=amp, steps=3), device="cpu")
    assert {p.dtype for p in result.parameters()} == {torch.float32}
    exact = run_training(Small(), batches(3), settings=settings(steps=3), device="cpu")
    assert not equal(result, exact)


def test_a_half_precision_network_is_trained_in_float32_and_given_back_as_it_came() -> None:
    result = run_training(Small().bfloat16(), batches(3), settings=settings(), device="cpu")
    assert {p.dtype for p in result.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_formats_agree(channels_last: bool) -> None:
    torch.manual_seed(5)
    model = Small()
    options = settings(channels_last=channels_last, steps=4)
    result = run_training(model, batches(3), settings=options, device="cpu")
    plain = run_training(model, batches(3), settings=settings(steps=4), device="cpu")
    for x, y in zip(result.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-5)


def test_clipping_bounds_the_step_of_the_first_update() -> None:
    # Adam hides the scale of gradients, except next to its epsilon.
    model = Small()
    options = {"lr": 1e-3, "ema": 0.0, "steps": 1}
    free = run_training(model, batches(3), settings=settings(**options), device="cpu")
    held = run_training(model, batches(3), settings=settings(**options, clip=1e-12), device="cpu")

    def change(result: nn.Module) -> float:
        pairs = zip(result.parameters(), model.parameters(), strict=True)
        return max(float((x - y).detach().abs().max()) for x, y in pairs)

    assert change(held) < 1e-6 < change(free)


def test_the_dual_model_learns_only_when_asked() -> None:
    fixed, learning = DualModel(3), DualModel(3)
    learning.load_state_dict(fixed.state_dict())
    start = deepcopy(fixed)
    for dual, asked in ((fixed, False), (learning, True)):
        options = settings(train_dual=asked)
        run_training(Small(), batches(3), dual=dual, settings=options, device="cpu")
    assert equal(fixed, start) and not equal(learning, start)


def test_metrics_are_means_of_their_steps(tmp_path: Path) -> None:
    shown: list[float] = []
    run_training(
        Small(),
        batches(3),
        settings=settings(steps=5),
        device="cpu",
        files=TrainingFiles(metrics=tmp_path / "metrics.jsonl"),
        progress=lambda what, done, total, values: shown.append(values["loss"]),
    )
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == [2, 4, 5]
    assert list(lines[0]) == ["step", *TERMS, "patches_per_second", "waiting", "lr", "seconds"]
    assert lines[0]["loss"] == pytest.approx(sum(shown[:2]) / 2, rel=1e-4)
    assert lines[2]["loss"] == pytest.approx(shown[4], rel=1e-4)
    assert 0 < lines[0]["seconds"] < lines[2]["seconds"]
    assert lines[0]["patches_per_second"] > 0 and 0 <= lines[0]["waiting"] < 1


def test_nan_stops_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    done: list[int] = []
    with pytest.raises(TrainingError, match="the loss became nan at step") as caught:
        run_training(
            Fading(),
            [(x["lr"] * 0, x["hr"] * 0) for x in batches(2)],
            settings=settings(steps=50, lr=1e-2, checkpoint_every=3),
            device="cpu",
            files=TrainingFiles(path),
            progress=lambda what, now, total, values: done.append(now),
        )
    good = done[-1] // 3 * 3
    assert 0 < good < 50 and f"at step {done[-1] + 1}" in str(caught.value)
    assert f"the checkpoint of step {good} in {path} is kept" in str(caught.value)
    state = torch.load(path, weights_only=True)["state"]
    assert state["step"] == good and math.isfinite(state["model"]["level"])


def test_weights_that_overflow_are_never_written(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    options = settings(lr=3e37, checkpoint_every=1)
    data = [(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 16, 16))]
    with pytest.raises(TrainingError, match="not finite after step 1; no checkpoint was saved"):
        run_training(Overflowing(), data, settings=options, device="cpu", files=TrainingFiles(path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({"dual": DualModel(2)}, {}, UsageError, "for x2, the network for x3"),
        ({"loader": []}, {}, DataError, "no batches"),
        ({"loader": iter([])}, {}, DataError, "no batches"),
        ({"model": Small().requires_grad_(False)}, {}, ModelError, "every parameter"),
        ({}, {"primal": 0.0}, UsageError, "every loss is off"),
        ({"teacher": nn.Upsample(scale_factor=2)}, {}, UsageError, "teacher of the same scale"),
        ({"device": "cuda:99"}, {}, UsageError, "does not exist"),
    ],
)
def test_bad_input_is_one_line(changes, options, error, message) -> None:
    given = {"model": Small(), "loader": batches(3, 1), "device": "cpu", **changes}
    with pytest.raises(error, match=message) as caught:
        run_training(given.pop("model"), given.pop("loader"), settings=settings(**options), **given)
    assert "\n" not in str(caught.value)


def test_resuming_needs_a_checkpoint() -> None:
    with pytest.raises(UsageError, match="path of a checkpoint"):
        TrainingFiles(resume=True)


def test_nan_in_the_data_is_the_datas_fault() -> None:
    (batch,) = batches(3, 1)
    batch["hr"][0, 0, 0, 0] = math.nan
    with pytest.raises(DataError, match="NaN"):
        run_training(Small(), [batch], settings=settings(), device="cpu")


def test_a_checkpoint_that_cannot_be_written_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        run_training(
            Small(),
            batches(3),
            settings=settings(),
            device="cpu",
            files=TrainingFiles(tmp_path / "file" / "last.ckpt"),
        )


class WeightNormed(nn.Module):
    """Its weight is computed from two parameters, as `nn.utils.weight_norm` did it."""

    scale = 2
    value_range = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.weight_norm(nn.Conv2d(3, 12, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(x), 2)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_a_network_with_computed_weights_is_trained_and_validated() -> None:
    model = WeightNormed()
    model(torch.rand(1, 3, 8, 8))  # its weight now has a gradient function
    seen: list[float] = []

    def validate(network: nn.Module) -> float:
        seen.append(float(network(torch.ones(1, 3, 8, 8)).detach().sum()))
        return float(len(seen))

    options = TrainSettings(steps=2, validate_every=1, lr=1e-2, dual_weight=0.0)
    result = drc.train(model, batches(2), validate=validate, settings=options, device="cpu")
    assert len(seen) == 2 and seen[0] != seen[1]
    assert float(result(torch.ones(1, 3, 8, 8)).detach().sum()) == seen[1]

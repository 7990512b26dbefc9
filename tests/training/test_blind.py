"""Recovery of a network that estimates a blur kernel, which learns it along with the image."""

from __future__ import annotations

import json
import signal
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training.test_processes import launch

import drc
from drc.core.errors import DataError, RunError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.data.degrade import Degradation
from drc.data.matlab import downscale
from drc.networks.blind import KernelEstimator, WithKernel
from drc.networks.registry import build
from drc.networks.zoo.dcls import DCLS
from drc.settings import RecoverySettings
from drc.training.kernel_loss import kernel_target
from drc.training.loop import TrainingFiles, run_training
from drc.training.objective import TERMS, Objective

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny() -> DCLS:
    torch.manual_seed(0)
    model = DCLS(features=16, blocks=1, groups=1, kernel_size=11, latent=24, scale=2)
    return model.eval()


def batches(count: int = 4, patch: int = 16, batch: int = 2) -> list[dict[str, Tensor]]:
    given = {"patch": patch, "batch": batch, "steps": count, "seed": 2}
    blurred = crop_loader(bundled_pairs()[:1], 2, degradation=Degradation("aniso", 2), **given)
    return list(blurred)


def settings(**changes: Any) -> RecoverySettings:
    return RecoverySettings(
        **{"steps": 4, "batch": 2, "patch": 16, "warmup": 0, "log_every": 1, "ema": 0.0, **changes}
    )


def changed(before: nn.Module, after: nn.Module) -> list[str]:
    old, new = before.state_dict(), after.state_dict()
    return [name for name in old if not torch.equal(old[name], new[name])]


def terms_of(objective: Objective, model: nn.Module, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
    return dict(zip(TERMS, objective(model, lr, hr).detach(), strict=True))


def test_who_estimates_a_kernel() -> None:
    assert isinstance(tiny(), KernelEstimator) and tiny().kernel_size == 11
    assert not isinstance(build("drn_tiny"), KernelEstimator)

    class Named(nn.Sequential):
        def restore(self, path: str) -> None:
            self.load_state_dict(torch.load(path, weights_only=True))

    assert not isinstance(Named(), KernelEstimator)


def test_the_kernel_is_compared_with_what_the_images_show() -> None:
    model, (batch,) = tiny().train(), batches(1)
    lr, hr = batch["lr"], batch["hr"]
    with torch.no_grad():
        sr, kernel = model.restore(lr)
    clean = downscale(hr, 2, 1.0, rounded=False)
    expected = (kernel - kernel_target(clean, lr, 11)).abs().mean()
    objective = Objective(settings(kernel_weight=3.0), 1.0, None, None, kernel=True)
    terms = terms_of(objective, WithKernel(model), lr, hr)
    assert float(terms["kernel"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(terms["primal"]) == pytest.approx(float((sr - hr).abs().mean()), rel=1e-5)
    assert float(terms["loss"]) == pytest.approx(float(terms["primal"] + 3 * expected), rel=1e-5)


def test_the_range_of_the_images_does_not_matter() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = tiny()

        def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
            sr, kernel = self.model.restore(lr / 255)
            return sr * 255, kernel

    (batch,) = batches(1)
    small = Objective(settings(), 1.0, None, None, True)
    large = Objective(settings(), 255.0, None, None, True)
    terms = terms_of(small, WithKernel(tiny()), batch["lr"], batch["hr"])
    wide = terms_of(large, Wide(), batch["lr"] * 255, batch["hr"] * 255)
    assert float(wide["kernel"]) == pytest.approx(float(terms["kernel"]), rel=1e-4)


def test_the_kernel_trains_the_estimator_and_nothing_else() -> None:
    model, (batch,) = tiny().train(), batches(1)
    only = settings(primal=0.0, dual_weight=0.0)
    Objective(only, 1.0, None, None, kernel=True)(WithKernel(model), **batch)[0].backward()
    for name, parameter in model.named_parameters():
        pulled = parameter.grad is not None and bool(parameter.grad.any())
        assert pulled == name.startswith("Estimator."), name


def test_without_a_weight_the_estimator_stays_as_it_is() -> None:
    model, data = tiny(), batches(2)
    shown: list[dict[str, float]] = []
    off = run_training(
        model,
        data,
        settings=settings(steps=2, kernel_weight=0.0),
        device="cpu",
        progress=lambda what, done, total, values: shown.append(values),
    )
    assert {values["kernel"] for values in shown} == {0.0}
    assert changed(model, off)
    assert all(name.startswith("Restorer.") for name in changed(model, off))
    # The estimator learns the kernel alone: the restorer's first step is the same with and without.
    first, other = (
        run_training(model, data, settings=settings(steps=1, kernel_weight=w), device="cpu")
        for w in (0.0, 1.0)
    )
    assert changed(first, other)
    assert all(name.startswith("Estimator.") for name in changed(first, other))


def test_training_brings_the_kernels_nearer(tmp_path: Path) -> None:
    model, data = tiny(), batches(3)
    path = tmp_path / "metrics.jsonl"
    options = settings(steps=36, lr=4e-4, log_every=3, ema=0.5)
    result = run_training(
        model,
        data,
        teacher=model,
        settings=options,
        device="cpu",
        files=TrainingFiles(metrics=path),
    )
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line["distill"] >= 0 and line["kernel"] > 0 for line in lines)
    assert lines[-1]["kernel"] < 0.8 * lines[0]["kernel"]

    def distance(network: DCLS) -> float:
        with torch.no_grad():
            found = [
                network.restore(x["lr"])[1]
                - kernel_target(downscale(x["hr"], 2, 1.0, rounded=False), x["lr"], 11)
                for x in data
            ]
        return torch.cat(found).abs().sum((1, 2, 3)).mean().item()

    assert isinstance(result, DCLS)
    assert distance(result) < 0.8 * distance(model)


def test_autocast_trains_the_estimator_too() -> None:
    model = tiny()
    result = run_training(model, batches(1), settings=settings(steps=2, amp="bf16"), device="cpu")
    assert any(name.startswith("Estimator.") for name in changed(model, result))


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    def run(path: Path, stop: int = 0) -> nn.Module:
        def progress(what: str, done: int, total: int, values: dict[str, float]) -> None:
            if done == stop:
                signal.raise_signal(signal.SIGINT)

        return run_training(
            tiny(),
            batches(3),
            teacher=tiny(),
            settings=settings(steps=7, ema=0.9),
            device="cpu",
            files=TrainingFiles(path, path.with_suffix(".jsonl"), resume=True),
            progress=progress,
        )

    whole = run(tmp_path / "whole.ckpt")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "last.ckpt", stop=3)
    resumed = run(tmp_path / "last.ckpt")
    assert changed(whole, resumed) == []
    kernels = [
        [json.loads(line)["kernel"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("whole.jsonl", "last.jsonl")
    ]
    assert kernels[0] == kernels[1] and len(kernels[0]) == 7


def test_the_weight_belongs_to_runs_that_use_it(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    plain = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    for model, data in ((tiny(), batches(1)), (plain, batches(1))):
        given = {"device": "cpu", "files": TrainingFiles(path)}
        again = {"device": "cpu", "files": TrainingFiles(path, resume=True)}
        run_training(model, data, settings=settings(steps=1), **given)
        identity = torch.load(path, weights_only=True)["identity"]
        other = settings(steps=1, kernel_weight=0.5)
        if model is plain:
            assert "kernel_weight" not in identity
            run_training(model, data, settings=other, **again)
        else:
            with pytest.raises(RunError, match=r"kernel_weight 1.0 then, 0.5 now"):
                run_training(model, data, settings=other, **again)


def test_networks_without_kernels_do_not_notice() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    results = [
        run_training(plain, batches(2), settings=settings(kernel_weight=weight), device="cpu")
        for weight in (0.0, 1.0, 7.0)
    ]
    assert changed(results[0], results[1]) == changed(results[0], results[2]) == []


def test_patches_that_do_not_show_the_kernel_are_refused() -> None:
    with pytest.raises(DataError, match="a 8x8 LR image does not show a 11x11 kernel"):
        run_training(tiny(), batches(1, patch=8), settings=settings(), device="cpu")
    alone = settings(primal=0.0, kernel_weight=0.0)
    with pytest.raises(UsageError, match=r"every loss is off; .*kernel_weight"):
        run_training(tiny(), batches(1), settings=alone, device="cpu")


def test_a_pruned_estimator_is_trained() -> None:
    model, data = tiny(), batches(2)
    few = drc.SearchSettings(patches=2, dual_steps=2)
    plan = drc.search(model, data, 0.3, settings=few, device="cpu")
    narrower = {name for name, width in plan.groups.items() if width.keep < width.of}
    assert any(name.startswith("Estimator.") for name in narrower)
    pruned = drc.prune(model, plan, data, calibration=few, device="cpu")
    before = deepcopy(pruned)
    result = drc.finetune(pruned, data, teacher=model, settings=settings(), device="cpu")
    assert changed(before, pruned) == []
    estimator = [name for name in pruned.state_dict() if name.startswith("Estimator.")]
    assert set(estimator) <= set(changed(before, result))


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    options = ["--blind", "--steps", "6"]
    one = launch("accelerate", tmp_path / "one", *options)
    two = launch("torchrun", tmp_path / "two", *options)
    assert any(name.startswith("Estimator.") for name in one)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=1e-4, msg=name)
    kernels = [
        [json.loads(line)["kernel"] for line in (tmp_path / x / "metrics.jsonl").open()]
        for x in ("one", "two")
    ]
    assert kernels[1] == pytest.approx(kernels[0], rel=1e-2)

"""The main job from Python: search, prune, finetune, and compress, which does all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from drc.artifacts.checkpoint import save
from drc.artifacts.plan import Plan
from drc.config import FinetuneSettings
from drc.errors import UsageError
from drc.importance import base as criteria
from drc.models.dual import AnyDual
from drc.models.traits import plain_network
from drc.pipeline import Loader, calibrate, check_plan, checked, cut_by_plan, plan_widths, validated
from drc.report.collect import Networks, Story, TestData, collect
from drc.report.schema import Report
from drc.runtime import Progress
from drc.strategies import base as strategies
from drc.training import loop

Outcome = TypeVar("Outcome")
BudgetKind = Literal["params", "macs"]


@dataclass(frozen=True)
class Result:
    """What `compress` returns.

    Attributes:
        model: the compressed, recovered network, in eval mode.
        plan: the widths that the search found.
        report: everything measured, before and after.
    """

    model: nn.Module
    plan: Plan
    report: Report

    def save(self, path: Path | str) -> None:
        """Write the network to a safetensors file that `drc.load` or `drc.apply` reads."""
        save(self.model, path, {"made_by": "drc.compress", "notes": self.report.notes})


def search(
    model: nn.Module,
    loader: Loader,
    *,
    ratio: float = 0.3,
    budget: BudgetKind = "params",
    strategy: str = "allocate",
    dual: AnyDual | None = None,
    round_to: int = 4,
    min_width: int = 4,
    patches: int = 64,
    dual_weight: float = 0.1,
    dual_steps: int = 50,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """Find how many channels every group keeps, by the dual regression loss.

    Args:
        model: any SR network `(N, C, h, w)` -> `(N, C, h * scale, w * scale)`, or a pyramid of
            images; it is not changed.
        loader: calibration batches, `(lr, hr)` or dicts with `lr`/`hr` or `lq`/`gt`, in 0..1 or
            in the network's declared range. Training data, never the test set.
        ratio: the fraction of the budget to remove, between 0 and 1.
        budget: what to count, `params` or `macs` (at an LR input of 96x96).
        strategy: a registered search strategy: `allocate` or `uniform`.
        dual: a trained dual model; None fits one on the loader first, and the plan says so.
        round_to: widths are multiples of this, or the dense width.
        min_width: no group gets narrower than this.
        patches: how many crops to look at, one at a time.
        dual_weight: lambda of the dual regression loss.
        dual_steps: steps to fit a dual model when none is given.
        device: auto, cpu or cuda:N.
        seed: of every random choice; on a CPU one seed gives one plan, bit for bit.
        progress: told about every crop.

    Returns:
        The plan; its predicted cost is within the limit, and at most 1 % of it below wherever
        the widths allow; where they do not, the plan's notes say so.

    Raises:
        BudgetError: no widths meet the budget; the message says what can be reached.
        ModelError, DataError, UsageError: the network, the batches or a setting cannot be used.
    """
    model = plain_network(model)
    settings = checked(
        ratio=ratio, budget=budget, strategy=strategy, round_to=round_to, min_width=min_width,
        patches=patches, dual_weight=dual_weight, dual_steps=dual_steps,
    )  # fmt: skip
    notes: list[str] = []
    uses_data = strategy not in strategies.DATA_FREE
    calibration = calibrate(
        model, loader, dual, settings, device, seed, progress, notes, fit=uses_data
    )
    return plan_widths(model, calibration, settings, notes)


def prune(
    model: nn.Module,
    plan: Plan,
    loader: Loader | None = None,
    *,
    importance: str = "dual_taylor",
    dual: AnyDual | None = None,
    patches: int = 64,
    dual_weight: float = 0.1,
    dual_steps: int = 50,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """Rank the channels, remove those the plan has no room for, and return the small network.

    Args:
        model: the network that was searched; it is not changed.
        plan: the result of `search` on the same weights.
        loader: calibration batches, as for `search`; `l1` and `random` need none.
        importance: a registered criterion: `dual_taylor`, `l1` or `random`.
        dual, patches, dual_weight, dual_steps, device, seed, progress: as for `search`.

    Returns:
        An ordinary network with smaller layers, in eval mode, on the device of `model`.

    Raises:
        RunError: the plan belongs to other weights.
        UsageError, ModelError, DataError: a setting, the network or the batches cannot be used.
    """
    model = plain_network(model)
    settings = checked(patches=patches, dual_weight=dual_weight, dual_steps=dual_steps)
    criteria.get_criterion(importance)
    check_plan(model, plan)
    uses_data = importance not in criteria.DATA_FREE
    if loader is None and uses_data:
        raise UsageError(f"{importance} needs calibration batches; pass a loader")
    calibration = calibrate(
        model, loader or [], dual, settings, device, seed, progress, fit=uses_data
    )
    return cut_by_plan(model, calibration, plan, importance)


def finetune(
    model: nn.Module,
    loader: loop.LoaderSource,
    *,
    teacher: nn.Module | None = None,
    dual: AnyDual | None = None,
    settings: FinetuneSettings | None = None,
    steps: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    metrics: Path | str | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Recover the quality of a pruned network; see `drc.training.loop.finetune`.

    Args:
        model: the pruned network; it is not changed.
        loader: batches as for `search`, or a function from a step to the batches from there on.
        teacher: the dense network to distil from; None for none.
        dual: the dual model; None leaves the dual term out.
        settings: all settings of the training.
        steps: optimizer steps, in place of `settings.steps`.
        device: auto, cpu or cuda:N.
        seed: of all random numbers.
        checkpoint: file that an interrupted training goes on from with `resume`.
        resume: go on from `checkpoint`.
        metrics: file for one line of JSON every few steps.
        progress: called after each step.

    Returns:
        A new network in eval mode, on the device of `model`.

    Raises:
        TrainingError: the loss became NaN; the last checkpoint is kept.
        RunError, DataError, UsageError: files, batches or settings cannot be used.
    """
    model = plain_network(model)
    settings = settings or FinetuneSettings()
    if steps is not None:
        settings = validated(FinetuneSettings, {**settings.model_dump(), "steps": steps})
    return loop.finetune(
        model, loader, teacher=teacher, dual=dual, settings=settings, device=device, seed=seed,
        checkpoint=checkpoint, resume=resume, metrics=metrics, progress=progress,
    )  # fmt: skip


def compress(
    model: nn.Module,
    loader: Loader,
    *,
    ratio: float = 0.3,
    budget: BudgetKind = "params",
    strategy: str = "allocate",
    importance: str = "dual_taylor",
    steps: int = 300,
    test: TestData | None = "bundled",
    dual: AnyDual | None = None,
    round_to: int = 4,
    min_width: int = 4,
    patches: int = 64,
    dual_weight: float = 0.1,
    dual_steps: int = 50,
    finetune_settings: FinetuneSettings | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Search, prune, recover and measure: the whole job in one call.

    Args:
        model: any SR network, on its trained weights; it is not changed.
        loader: training batches `(lr, hr)` or dicts, as for `search`.
        ratio, budget, strategy, round_to, min_width, patches, dual_weight, dual_steps: as for
            `search`.
        importance: as for `prune`.
        steps: recovery steps; 0 leaves the recovery out.
        test: what to measure on: a folder, pairs, `bundled` photos, or None to skip PSNR.
        dual: a trained dual model; None fits one on the loader first.
        finetune_settings: all settings of the recovery; `steps` wins over its own.
        device: auto, cpu or cuda:N.
        seed: of every random choice.
        progress: told what is being done.

    Raises:
        BudgetError: no widths meet the budget.
        DrcError: another input cannot be used; the message says which.
    """
    model = plain_network(model)
    settings = checked(
        ratio=ratio, budget=budget, strategy=strategy, round_to=round_to, min_width=min_width,
        patches=patches, dual_weight=dual_weight, dual_steps=dual_steps,
    )  # fmt: skip
    strategies.get_strategy(strategy), criteria.get_criterion(importance)
    if steps < 0:
        raise UsageError(f"steps is {steps}; recovery takes 0 or more")
    notes: list[str] = []
    seconds: dict[str, dict[str, Any]] = {}
    calibration = _timed(
        seconds, "calibrate",
        lambda: calibrate(model, loader, dual, settings, device, seed, progress, notes),
    )  # fmt: skip
    plan = _timed(seconds, "search", lambda: plan_widths(model, calibration, settings, notes))
    pruned = _timed(seconds, "prune", lambda: cut_by_plan(model, calibration, plan, importance))
    recovered = None
    if steps:
        recovered = _timed(
            seconds, "finetune",
            lambda: finetune(
                pruned, loader, teacher=model, dual=calibration.dual, settings=finetune_settings,
                steps=steps, device=device, seed=seed, progress=progress,
            ),
        )  # fmt: skip
    networks = Networks(before=model, pruned=pruned, recovered=recovered)
    story = Story(
        command="drc.compress",
        weights="as given",
        importance=importance,
        calibration=f"{patches} crops of the given loader",
        recovery=f"{steps} steps on the given loader" if steps else "not run",
        steps=seconds,
        notes=tuple(notes),
    )
    report = collect(networks, plan, story, test=test, device=device, progress=progress)
    return Result(recovered if recovered is not None else pruned, plan, report)


def _timed(seconds: dict[str, dict[str, Any]], name: str, work: Callable[[], Outcome]) -> Outcome:
    start = time.perf_counter()
    result = work()
    seconds[name] = {"seconds": round(time.perf_counter() - start, 3)}
    return result

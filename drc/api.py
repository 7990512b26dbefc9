"""The main job from Python: search, prune, finetune, and compress, which does all of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import torch
from torch import nn

from drc.core.distributed import is_first, on_first, together
from drc.core.errors import UsageError
from drc.core.runtime import Progress
from drc.job import Job
from drc.networks.dual import AnyDual
from drc.networks.traits import get_traits, plain_network
from drc.opening import open_teacher
from drc.pipeline import (
    Loader,
    check_plan,
    checked,
    cut_by_plan,
    plan_front,
    validated,
)
from drc.report.collect import Networks, Provenance, TestData, collect
from drc.report.schema import Report
from drc.rounds import default_rounds
from drc.selection.calibration import calibrate
from drc.selection.criteria import base as criteria
from drc.selection.widths import base as strategies
from drc.settings.runs import PruneSettings
from drc.settings.training import RecoverySettings
from drc.store.networks import save
from drc.store.plan import Plan
from drc.training import loop
from drc.training.distill import in_words, teacher_factor

BudgetKind = Literal["params", "macs", "latency"]
RoundTo = int | Literal["auto"]


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


@overload
def search(
    model: nn.Module, loader: Loader, *, ratio: float = ..., budget: BudgetKind = ...,
    strategy: str = ..., dual: AnyDual | None = ..., round_to: RoundTo = ..., min_width: int = ...,
    lr_size: tuple[int, int] = ..., patches: int = ..., dual_weight: float = ...,
    dual_steps: int = ..., device: str | torch.device = ..., seed: int = ...,
    progress: Progress | None = ...,
) -> Plan: ...  # fmt: skip


@overload
def search(
    model: nn.Module, loader: Loader, *, ratio: Sequence[float], budget: BudgetKind = ...,
    strategy: str = ..., dual: AnyDual | None = ..., round_to: RoundTo = ..., min_width: int = ...,
    lr_size: tuple[int, int] = ..., patches: int = ..., dual_weight: float = ...,
    dual_steps: int = ..., device: str | torch.device = ..., seed: int = ...,
    progress: Progress | None = ...,
) -> list[Plan]: ...  # fmt: skip


def search(
    model: nn.Module,
    loader: Loader,
    *,
    ratio: float | Sequence[float] = 0.3,
    budget: BudgetKind = "params",
    strategy: str = "allocate",
    dual: AnyDual | None = None,
    round_to: RoundTo = 8,
    min_width: int = 4,
    lr_size: tuple[int, int] = (96, 96),
    patches: int = 64,
    dual_weight: float = 0.1,
    dual_steps: int = 50,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan | list[Plan]:
    """Find how many channels every group keeps, by the dual regression loss.

    Args:
        model: any SR network `(N, C, h, w)` -> `(N, C, h * scale, w * scale)`, or a pyramid of
            images; it is not changed.
        loader: calibration batches, `(lr, hr)` or dicts with `lr`/`hr` or `lq`/`gt`, in 0..1 or
            in the network's declared range. Training data, never the test set.
        ratio: the fraction of the budget to remove, between 0 and 1; several give a plan each,
            from one look at the data.
        budget: what to count: `params`, `macs`, or `latency`, the measured time of one forward
            pass on `device` with the threads that torch has now.
        strategy: a registered search strategy: `allocate` or `uniform`.
        dual: a trained dual model; None fits one on the loader first, and the plan says so.
        round_to: widths are multiples of this, or the dense width; `auto` times the network's
            slowest layers and takes the multiple in which their time rises, 4, 8, 16 or 32.
        min_width: no group gets narrower than this.
        lr_size: height and width of the LR image for `macs` and `latency`.
        patches: how many crops to look at, one at a time.
        dual_weight: lambda of the dual regression loss.
        dual_steps: steps to fit a dual model when none is given.
        device: auto, cpu or cuda:N.
        seed: of every random choice; on a CPU one seed gives one plan, bit for bit, but for what
            is measured: a `latency` budget and `auto`.
        progress: told about every crop.

    Returns:
        The plan; its predicted cost is within the limit, and at most 1 % of it below wherever
        the widths allow; where they do not, the plan's notes say so. For several ratios a list,
        in their order; `plan.budget.ratio` tells them apart. One that cannot be reached has no
        plan, of which a warning tells.

    Raises:
        BudgetError: no widths meet the budget, or any of several; the message says what can be
            reached.
        ModelError, DataError, UsageError: the network, the batches or a setting cannot be used.
    """
    model = plain_network(model)
    settings = checked(
        ratio=ratio, budget=budget, strategy=strategy, round_to=round_to, min_width=min_width,
        lr_size=lr_size, patches=patches, dual_weight=dual_weight, dual_steps=dual_steps,
    )  # fmt: skip
    notes: list[str] = []
    uses_data = not strategies.get_strategy(strategy).data_free
    with together(device) as where:
        calibration = calibrate(
            model, loader, dual, settings, where, seed, progress, notes, fit=uses_data
        )
        front = plan_front(model, calibration, settings, notes)
    for reason in front.missed.values() if is_first() else ():
        warnings.warn(reason, stacklevel=2)
    return front.plans if isinstance(ratio, Sequence) else front.plans[0]


def prune(
    model: nn.Module,
    plan: Plan,
    loader: Loader | None = None,
    *,
    importance: str = "dual_obs",
    reconstruct: bool = True,
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
        loader: calibration batches, as for `search`; criteria that look at weights need none.
        importance: a registered criterion, such as `dual_obs` or `l1`.
        reconstruct: refit the layers that read removed channels, in closed form; left out when
            there is no loader.
        dual, patches, dual_weight, dual_steps, device, seed, progress: as for `search`.

    Returns:
        An ordinary network with smaller layers, in eval mode, on the device of `model`.

    Raises:
        RunError: the plan belongs to other weights.
        UsageError, ModelError, DataError: a setting, the network or the batches cannot be used.
    """
    model = plain_network(model)
    settings = checked(patches=patches, dual_weight=dual_weight, dual_steps=dual_steps)
    uses_data = not criteria.get_criterion(importance).data_free
    check_plan(model, plan)
    if loader is None and uses_data:
        raise UsageError(f"{importance} needs calibration batches; pass a loader")
    with together(device) as where:
        calibration = calibrate(
            model, loader or [], dual, settings, where, seed, progress, fit=uses_data
        )
        refits = reconstruct and loader is not None
        ranking = PruneSettings(importance=importance, reconstruct=refits)
        return cut_by_plan(model, calibration, plan, ranking)


def finetune(
    model: nn.Module,
    loader: loop.LoaderSource,
    *,
    teacher: nn.Module | None = None,
    dual: AnyDual | None = None,
    settings: RecoverySettings | None = None,
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
        teacher: the dense network to distil from, or another of the same scale, whose range of
            values may differ; None for the one that the settings name, or none.
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
    settings = settings or RecoverySettings()
    if steps is not None:
        settings = validated(RecoverySettings, {**settings.model_dump(), "steps": steps})
    teacher = _teacher(model, teacher, settings)
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
    importance: str = "dual_obs",
    reconstruct: bool = True,
    steps: int = 300,
    test: TestData | None = "bundled",
    dual: AnyDual | None = None,
    round_to: RoundTo = 8,
    min_width: int = 4,
    lr_size: tuple[int, int] = (96, 96),
    patches: int = 64,
    dual_weight: float = 0.1,
    dual_steps: int = 50,
    finetune_settings: RecoverySettings | None = None,
    teacher: nn.Module | None = None,
    rounds: Literal[1, 2] | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Search, prune, recover and measure: the whole job in one call.

    Args:
        model: any SR network, on its trained weights; it is not changed.
        loader: training batches `(lr, hr)` or dicts, as for `search`.
        ratio, budget, strategy, round_to, min_width, lr_size, patches, dual_weight, dual_steps: as
            for `search`.
        importance, reconstruct: as for `prune`.
        steps: recovery steps; 0 leaves the recovery out.
        test: what to measure on: a folder, pairs, `bundled` photos, or None to skip PSNR.
        dual: a trained dual model; None fits one on the loader first.
        finetune_settings: all settings of the recovery; `steps` wins over its own.
        teacher: a network of the same scale to learn from in recovery; by default the one that
            `finetune_settings` names, else `model`.
        rounds: 2 removes part of the channels, recovers for a third of the steps, and removes the
            rest; None takes 1, up to a ratio of `drc.rounds.TWO_ROUNDS_ABOVE`.
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
        lr_size=lr_size, patches=patches, dual_weight=dual_weight, dual_steps=dual_steps,
    )  # fmt: skip
    strategies.get_strategy(strategy), criteria.get_criterion(importance)
    if settings.front:
        raise UsageError("drc.compress takes one ratio; drc.search gives plans for several")
    if steps < 0:
        raise UsageError(f"steps is {steps}; recovery takes 0 or more")
    if rounds not in (None, 1, 2):
        raise UsageError(f"rounds is {rounds}; it takes 1 or 2")
    recovery = finetune_settings or RecoverySettings()
    teacher = _teacher(model, teacher, recovery)
    taught = in_words("the dense network" if teacher is None else teacher, recovery)
    twice = (rounds or default_rounds(settings.ratio)) == 2
    with together(device) as where:
        job = Job(
            loader, importance, reconstruct, model if teacher is None else teacher, dual, recovery,
            where, seed, progress,
        )  # fmt: skip
        made = (job.twice if twice else job.once)(model, settings, steps)
        story = Provenance(
            command="drc.compress",
            weights="as given",
            importance=importance,
            calibration=f"{patches} crops of the given loader",
            recovery=f"{steps} steps on the given loader, {taught}" if steps else "not run",
            steps=job.seconds,
            notes=tuple(job.notes),
        )
        networks = Networks(before=model, pruned=made.pruned, recovered=made.recovered)
        report = on_first(
            lambda: collect(networks, made.plan, story, test=test, device=where, progress=progress)
        )
    return Result(made.model, made.plan, report)


def _teacher(
    model: nn.Module, teacher: nn.Module | None, settings: RecoverySettings
) -> nn.Module | None:
    """What the caller gives to learn from, else what the settings name, else None."""
    traits = get_traits(model)
    distils = settings.distill or settings.features
    if teacher is None and settings.teacher is not None and distils:
        teacher = open_teacher(settings.teacher, traits.scale)
    if teacher is not None:
        teacher_factor(traits, teacher)
    return teacher

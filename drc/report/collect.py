"""Measure two networks, before and after, and put the figures into a `Report`."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

import drc
from drc.core.runtime import Progress
from drc.data.folders import ImagePair
from drc.data.images import write_image
from drc.evaluation.benchmark import Bicubic, Evaluation, ImageScore, evaluate
from drc.evaluation.complexity import Complexity, complexity
from drc.evaluation.inference import Inference
from drc.evaluation.latency import Latency, latency
from drc.evaluation.latency_table import device_name
from drc.networks.traits import get_traits
from drc.report.kernels import kernel_errors, kernel_grid
from drc.report.schema import (
    Counters,
    DataUsed,
    ImageQuality,
    LatencyConditions,
    PlanSummary,
    Quality,
    Report,
    Side,
)
from drc.store.plan import Plan

TestData = str | Path | list[ImagePair] | Iterable[tuple[torch.Tensor, torch.Tensor]]

INITIAL_WEIGHTS = "initial weights, never trained: the PSNR and SSIM figures mean nothing"


@dataclass(frozen=True)
class Networks:
    """The networks of one compression.

    Attributes:
        before: the dense network.
        pruned: the network right after surgery.
        recovered: the fine-tuned network, or None when recovery has not run.
    """

    before: nn.Module
    pruned: nn.Module
    recovered: nn.Module | None = None

    @property
    def after(self) -> nn.Module:
        return self.pruned if self.recovered is None else self.recovered


@dataclass(frozen=True)
class Provenance:
    """What no measurement can tell: how the networks came about.

    Attributes:
        command: what made the report, such as `drc report`.
        weights: in words, where the dense network's weights came from.
        importance: the criterion that ranked the channels.
        calibration: what search and ranking looked at, in words.
        recovery: what recovery looked at, in words.
        steps: step -> its seconds and other facts.
        files: name -> path.
        notes: what the reader must know.
    """

    command: str
    weights: str
    importance: str
    calibration: str
    recovery: str
    steps: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def collect(
    networks: Networks,
    plan: Plan,
    story: Provenance,
    *,
    test: TestData | None = "bundled",
    lr_size: tuple[int, int] = (96, 96),
    runs: int = 5,
    inference: Inference | None = None,
    device: str | torch.device = "auto",
    kernels: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure costs, quality and latency of the networks.

    Args:
        networks: the networks; none is changed.
        plan: the plan they were cut by.
        story: where everything came from.
        test: what to measure PSNR and SSIM on, as `evaluate` takes it; None to skip them.
        lr_size: height and width of the LR input for MACs and latency.
        runs: latency runs per network; 0 to skip them.
        inference: how the test images go through the networks; None for whole and once.
        device: where to run.
        kernels: file for a picture of the blur kernels, where the networks estimate some.
        progress: told about every image and run.

    Raises:
        DataError: the test images cannot be used.
        ModelError: a network does not run.
        RunError: the picture cannot be written.
    """
    costs = {}
    for done, name in enumerate(("before", "after"), 1):
        costs[name] = complexity(getattr(networks, name), lr_size)
        if progress is not None:
            progress("count MACs", done, 2, {})
    quality = _qualities(networks, test, inference or Inference(), device, progress)
    times = _latencies(networks, lr_size, runs, device, progress)
    notes = list(story.notes)
    if networks.recovered is None:
        notes.append("no recovery yet: `after` is the network right after pruning")
    if story.weights == INITIAL_WEIGHTS:
        notes.append(INITIAL_WEIGHTS)
    errors, files = kernel_errors(quality), dict(story.files)
    if errors is not None and kernels is not None:
        write_image(kernels, kernel_grid(quality["before"], quality["after"]))
        files["blur kernels"] = str(kernels)
    return Report(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=story.command,
        versions=_versions(),
        machine=_machine(),
        model=plan.model,
        scale=plan.scale,
        weights=story.weights,
        before=_side("before", costs, quality, times),
        after=_side("after", costs, quality, times),
        bicubic=Quality(**_figures(quality.get("bicubic"))),
        pruned_only=Quality(**_figures(quality.get("pruned"))),
        kernel_error=errors,
        recovered=networks.recovered is not None,
        lr_size=lr_size,
        counters=_counters(costs),
        latency=_conditions(times),
        data=_data(story, quality),
        plan=_summary(plan, story.importance),
        steps=dict(story.steps),
        files=files,
        notes=list(dict.fromkeys([*plan.notes, *notes])),
    )


def _qualities(
    networks: Networks,
    test: TestData | None,
    inference: Inference,
    device: str | torch.device,
    progress: Progress | None,
) -> dict[str, Evaluation]:
    if test is None:
        return {}
    # An iterator would be empty for the second network.
    data = test if isinstance(test, (str, Path, list)) else list(test)
    baseline = Bicubic(get_traits(networks.before).scale)
    models = {"bicubic": baseline, "before": networks.before, "pruned": networks.pruned}
    if networks.recovered is not None:
        models["recovered"] = networks.recovered
    found = {
        name: evaluate(
            model, data, device=device, progress=_named(progress, f"evaluate {name}"),
            **inference.arguments(),
        )
        for name, model in models.items()
    }  # fmt: skip
    return {**found, "after": found.get("recovered", found["pruned"])}


def _named(progress: Progress | None, name: str) -> Progress | None:
    """The same progress under another name."""
    if progress is None:
        return None
    return lambda _, done, total, metrics: progress(name, done, total, metrics)


def _latencies(
    networks: Networks,
    lr_size: tuple[int, int],
    runs: int,
    device: str | torch.device,
    progress: Progress | None,
) -> dict[str, Latency]:
    if runs == 0:
        return {}
    models = {"before": networks.before, "after": networks.after}
    return latency(models, lr_size, runs=runs, device=device, progress=progress)


def _side(
    name: str,
    costs: dict[str, Complexity],
    quality: dict[str, Evaluation],
    times: dict[str, Latency],
) -> Side:
    cost, time = costs[name], times.get(name)
    return Side(
        params=cost.params,
        macs=cost.macs,
        latency_ms=time.median_ms if time else None,
        **_figures(quality.get(name)),
    )


def _figures(scores: Any) -> dict[str, float | None]:
    """PSNR and SSIM of an evaluation or of one image; a PSNR without bound becomes None."""
    if scores is None:
        return {"psnr": None, "ssim": None}
    return {"psnr": _finite(scores.psnr), "ssim": _finite(scores.ssim)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _counters(costs: dict[str, Complexity]) -> Counters:
    before, after = costs["before"], costs["after"]
    thop = None
    if before.thop_macs is not None and after.thop_macs is not None:
        thop = (before.thop_macs, after.thop_macs)
    return Counters(macs=before.counter, thop_macs=thop)


def _conditions(times: dict[str, Latency]) -> LatencyConditions | None:
    if not times:
        return None
    one = times["before"]
    return LatencyConditions(runs=one.runs, device=one.device, threads=one.threads)


def _data(story: Provenance, quality: dict[str, Evaluation]) -> DataUsed:
    images = []
    if quality:
        pairs = zip(quality["before"].images, quality["after"].images, strict=True)
        for before, after in pairs:
            images.append(
                ImageQuality(
                    name=before.name,
                    psnr_before=_finite(before.psnr),
                    psnr_after=_finite(after.psnr),
                    ssim_before=_finite(before.ssim),
                    ssim_after=_finite(after.ssim),
                    kernel_error_before=_kernel_error(before),
                    kernel_error_after=_kernel_error(after),
                )
            )
    return DataUsed(
        calibration=story.calibration,
        recovery=story.recovery,
        test=quality["before"].data if quality else "nothing: not measured",
        images=images,
    )


def _kernel_error(image: ImageScore) -> float | None:
    return None if image.kernel is None else image.kernel.error


def _summary(plan: Plan, importance: str) -> PlanSummary:
    return PlanSummary(
        strategy=plan.strategy,
        importance=importance,
        budget=plan.budget.kind,
        ratio=plan.budget.ratio,
        limit=plan.budget.limit,
        predicted=plan.budget.predicted,
        groups={name: (group.keep, group.of) for name, group in plan.groups.items()},
        frozen=plan.frozen,
    )


def _versions() -> dict[str, str]:
    return {
        "drc": drc.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _machine() -> str:
    """The processor, and the system around it; a GPU is named where its times are."""
    return f"{device_name(torch.device('cpu'))}, {platform.system()}"

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
from drc.report.pictures import kernel_grid
from drc.report.schema import (
    Counters,
    DataUsed,
    ImageQuality,
    KernelErrors,
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
class Origin:
    """Where everything comes from, in words: for the report and the headers of saved networks.

    Attributes:
        command: what the user called.
        weights: where the dense network's weights came from.
        dual: the same of the dual model that is given.
        notes: what the reader must know.
    """

    command: str = "drc.compress"
    weights: str = "as given"
    dual: str = "as given"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """What no measurement shows: how the networks came about.

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
    provenance: Provenance,
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
        provenance: how the networks came about.
        test: what to measure PSNR and SSIM on, as `evaluate` takes it; None to skip them.
        lr_size: height and width of the LR input for MACs and latency.
        runs: latency runs per network; 0 to skip them.
        inference: how the test images go through the networks; None for whole and once.
        device: where to run.
        kernels: file for a picture of the blur kernels, where the networks estimate some.
        progress: called after every image and run.

    Raises:
        DataError: the test images cannot be used.
        ModelError: a network does not run.
        RunError: the picture cannot be written.
    """
    costs: dict[str, Complexity] = {}
    for done, name in enumerate(("before", "after"), 1):
        costs[name] = complexity(getattr(networks, name), lr_size)
        if progress is not None:
            progress("count MACs", done, 2, {})
    quality = _qualities(networks, test, inference or Inference(), device, progress)
    times = _latencies(networks, lr_size, runs, device, progress)
    sides = {
        name: Side(
            params=cost.params,
            macs=cost.macs,
            latency_ms=times[name].median_ms if times else None,
            **_figures(quality.get(name)),
        )
        for name, cost in costs.items()
    }
    notes = list(provenance.notes)
    if networks.recovered is None:
        notes.append("no recovery yet: `after` is the network right after pruning")
    if provenance.weights == INITIAL_WEIGHTS:
        notes.append(INITIAL_WEIGHTS)
    errors, files = _kernel_errors(quality), dict(provenance.files)
    if errors is not None and kernels is not None:
        write_image(kernels, kernel_grid(quality["before"], quality["after"]))
        files["blur kernels"] = str(kernels)
    return Report(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=provenance.command,
        versions={
            "drc": drc.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        # A GPU is named where its times are.
        machine=f"{device_name(torch.device('cpu'))}, {platform.system()}",
        model=plan.model,
        scale=plan.scale,
        weights=provenance.weights,
        before=sides["before"],
        after=sides["after"],
        bicubic=Quality(**_figures(quality.get("bicubic"))),
        pruned_only=Quality(**_figures(quality.get("pruned"))),
        kernel_error=errors,
        recovered=networks.recovered is not None,
        lr_size=lr_size,
        counters=_counters(costs),
        latency=_conditions(times),
        data=_data(provenance, quality),
        plan=_summary(plan, provenance.importance),
        steps=dict(provenance.steps),
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


def _conditions(times: dict[str, Latency]) -> LatencyConditions | None:
    if not times:
        return None
    one = times["before"]
    return LatencyConditions(runs=one.runs, device=one.device, threads=one.threads)


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


def _data(provenance: Provenance, quality: dict[str, Evaluation]) -> DataUsed:
    images = []
    if quality:
        pairs = zip(quality["before"].images, quality["after"].images, strict=True)
        images = [_image(before, after) for before, after in pairs]
    return DataUsed(
        calibration=provenance.calibration,
        recovery=provenance.recovery,
        test=quality["before"].data if quality else "nothing: not measured",
        images=images,
    )


def _image(before: ImageScore, after: ImageScore) -> ImageQuality:
    figures: dict[str, float | None] = {}
    for side, image in (("before", before), ("after", after)):
        figures[f"psnr_{side}"] = _finite(image.psnr)
        figures[f"ssim_{side}"] = _finite(image.ssim)
        figures[f"kernel_error_{side}"] = None if image.kernel is None else image.kernel.error
    return ImageQuality(name=before.name, **figures)


def _kernel_errors(quality: Mapping[str, Evaluation]) -> KernelErrors | None:
    """The errors of the networks before, pruned and after; None where there are none."""
    found = {name: quality[name].kernel_error for name in KernelErrors.model_fields if quality}
    if not found or None in found.values():
        return None
    return KernelErrors.model_validate(found)


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

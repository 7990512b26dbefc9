"""The shape of report.json: what `--json` prints and `Result.report` holds."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from drc.artifacts.plan import FrozenChannels

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Side(_Part):
    """One network, measured.

    Attributes:
        params: number of parameters.
        macs: multiply-adds of one forward pass at `Report.lr_size`.
        psnr: mean over the test images, dB, on Y; None when not measured or without bound.
        ssim: mean over the test images, on Y; None when not measured.
        latency_ms: median of one forward pass at `Report.lr_size`.
    """

    params: int
    macs: int
    psnr: float | None = None
    ssim: float | None = None
    latency_ms: float | None = None


class Quality(_Part):
    """PSNR (dB) and SSIM on the test images."""

    psnr: float | None = None
    ssim: float | None = None


class KernelErrors(_Part):
    """How far the blur kernels that the networks estimate are from what the test images show.

    Sums of absolute differences over the kernel, 0 to 2, means over the test images.
    """

    before: float
    pruned: float
    after: float


class Counters(_Part):
    """What counted the costs, and a second count to check them by.

    Attributes:
        params: how parameters were counted.
        macs: name and version of the counter of multiply-adds.
        thop_macs: thop's count for before and after, where thop imports.
    """

    params: str = "every element of every nn.Parameter"
    macs: str
    thop_macs: tuple[int, int] | None = None


class LatencyConditions(_Part):
    """Under which `latency_ms` was taken: medians of interleaved, warm runs."""

    runs: int
    device: str
    threads: int
    batch: int = 1
    dtype: str = "float32"


class ImageQuality(_Part):
    """One test image, before and after."""

    name: str
    psnr_before: float | None = None
    psnr_after: float | None = None
    ssim_before: float | None = None
    ssim_after: float | None = None
    kernel_error_before: float | None = None
    kernel_error_after: float | None = None


class DataUsed(_Part):
    """The images behind the figures.

    Attributes:
        calibration: what search and ranking looked at.
        recovery: what fine-tuning looked at.
        test: what PSNR and SSIM were measured on.
        images: the test images one by one.
    """

    calibration: str
    recovery: str
    test: str
    images: list[ImageQuality] = Field(default_factory=list)


class PlanSummary(_Part):
    """The plan that was carried out.

    Attributes:
        groups: group -> [kept, of].
        frozen: the channels that no plan can remove, each with its reason.
    """

    strategy: str
    importance: str
    budget: str
    ratio: float
    limit: int
    predicted: int
    groups: dict[str, tuple[int, int]]
    frozen: list[FrozenChannels] = Field(default_factory=list)


class Report(_Part):
    """Everything measured about one compression.

    Attributes:
        schema_version: of this shape.
        created: UTC time, ISO 8601.
        command: what made the report.
        versions: of drc, torch and Python.
        machine: processor and system that measured; empty in reports of older versions.
        model: registered name or class name.
        scale: HR side over LR side.
        weights: in words, where the starting weights came from.
        before: the dense network.
        after: the compressed network, recovered where recovery has run.
        bicubic: quality of plain bicubic enlargement, the baseline.
        pruned_only: quality right after pruning, before recovery.
        kernel_error: of the estimated blur kernels; None where the network estimates none or they
            were not measured.
        recovered: whether recovery has run.
        lr_size: height and width of the input for MACs and latency.
        steps: per step of the work, its seconds and what it did.
        files: name to path, of what was written.
        notes: what the reader must know to read the figures right.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    command: str
    versions: dict[str, str]
    machine: str = ""
    model: str
    scale: int
    weights: str
    before: Side
    after: Side
    bicubic: Quality = Quality()
    pruned_only: Quality
    kernel_error: KernelErrors | None = None
    recovered: bool
    lr_size: tuple[int, int]
    counters: Counters
    latency: LatencyConditions | None
    data: DataUsed
    plan: PlanSummary
    steps: dict[str, dict[str, Any]] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    def to_json(self) -> str:
        """JSON text; figures without bound (PSNR of equal images) become null."""
        return self.model_dump_json(indent=2)

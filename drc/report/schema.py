"""The shape of report.json: what `--json` prints and `Result.report` holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator

from drc.store.plan import FrozenChannels
from drc.store.run_folder import is_seconds

SCHEMA_VERSION = 1

# What a figure can be. The bounds are far outside what is measured: they keep what a damaged file
# holds from reaching a ratio, a logarithm or an axis.
_Whole = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
_Count = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Psnr = Annotated[_Number, Field(ge=0, le=1000)]
_Ssim = Annotated[_Number, Field(ge=-1.001, le=1.001)]  # rounding may take it a little past 1
_Time = Annotated[_Number, Field(gt=0, le=1e12)]
_Error = Annotated[_Number, Field(ge=0, le=1e12)]
_Size = tuple[_Count, _Count]


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

    params: _Count
    macs: _Count
    psnr: _Psnr | None = None
    ssim: _Ssim | None = None
    latency_ms: _Time | None = None


class Quality(_Part):
    """PSNR (dB) and SSIM on the test images."""

    psnr: _Psnr | None = None
    ssim: _Ssim | None = None


class KernelErrors(_Part):
    """How far the blur kernels that the networks estimate are from what the test images show.

    Sums of absolute differences over the kernel, 0 to 2, means over the test images.
    """

    before: _Error
    pruned: _Error
    after: _Error


class Counters(_Part):
    """What counted the costs, and a second count to check them by.

    Attributes:
        params: how parameters were counted.
        macs: name and version of the counter of multiply-adds.
        thop_macs: thop's count for before and after, where thop imports.
    """

    params: str = "every element of every nn.Parameter"
    macs: str
    thop_macs: tuple[_Whole, _Whole] | None = None


class LatencyConditions(_Part):
    """Under which `latency_ms` was taken: medians of interleaved, warm runs."""

    runs: _Count
    device: str
    threads: _Count
    batch: _Count = 1
    dtype: str = "float32"


class ImageQuality(_Part):
    """One test image, before and after."""

    name: str
    psnr_before: _Psnr | None = None
    psnr_after: _Psnr | None = None
    ssim_before: _Ssim | None = None
    ssim_after: _Ssim | None = None
    kernel_error_before: _Error | None = None
    kernel_error_after: _Error | None = None


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
    budget: Literal["params", "macs", "latency"]
    ratio: Annotated[_Number, Field(gt=0, lt=1)]
    limit: _Whole
    predicted: _Whole
    groups: dict[str, _Size]
    frozen: list[FrozenChannels] = Field(default_factory=list)

    @field_validator("groups")
    @classmethod
    def _fit(cls, groups: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        for name, (keep, of) in groups.items():
            if keep > of:
                raise ValueError(f"{name} keeps {keep} of {of} channels")
        return groups


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
    scale: _Count
    weights: str
    before: Side
    after: Side
    bicubic: Quality = Quality()
    pruned_only: Quality
    kernel_error: KernelErrors | None = None
    recovered: StrictBool
    lr_size: _Size
    counters: Counters
    latency: LatencyConditions | None
    data: DataUsed
    plan: PlanSummary
    steps: dict[str, dict[str, Any]] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    @field_validator("steps")
    @classmethod
    def _timed(cls, steps: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, facts in steps.items():
            if "seconds" in facts and not is_seconds(facts["seconds"]):
                raise ValueError(f"the seconds of {name} are no time: {facts['seconds']!r}")
        return steps

    @property
    def network(self) -> str:
        """The name with the scale, such as `drn_s x4`."""
        return f"{self.model} x{self.scale}"

    def to_json(self) -> str:
        """JSON text; numbers without bound among the facts of `steps` become null."""
        return self.model_dump_json(indent=2)

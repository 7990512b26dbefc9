"""Where images come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from drc.settings.base import FREE, Positive, Settings, Weight, Whole, absolute, setting

_EVERY = ("compress", "search", "prune", "finetune", "train", "adapt")


class ImageSettings(Settings):
    """Where training images come from."""

    data: str | None = setting(
        None,
        "images to train on, and to calibrate by: a folder, or a DIV2K tree",
        none="bundled photos", flag="--data", on=_EVERY,
    )  # fmt: skip
    workers: Whole = setting(
        0, "processes that load images; 0 loads in the main one",
        flag="--workers", on=_EVERY, change=FREE,
    )  # fmt: skip
    degradation: Literal["bicubic", "iso", "aniso", "nearest", "blur"] = setting(
        "bicubic",
        "how LR crops are made (bicubic takes LR files where there are some)",
        flag="--degradation", on=("train", "adapt"),
    )  # fmt: skip
    cache_gb: Weight = setting(
        4.0, "decoded images to keep in memory, in GiB, for all workers together", change=FREE
    )
    noise: Annotated[float, Field(ge=0, le=255)] = setting(
        0.0, "noise on the degraded LR crops, standard deviation in 8-bit levels"
    )

    @field_validator("data", "test_data", "val_data", check_fields=False)
    @classmethod
    def _resolve(cls, value: str | None) -> str | None:
        return absolute(value, keep=("none",), default="bundled")

    @property
    def cache_bytes(self) -> int:
        return int(self.cache_gb * 2**30)

    @field_validator("noise")
    @classmethod
    def _noise_goes_with_blur(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("degradation") == "bicubic":
            raise ValueError("needs a data.degradation other than bicubic")
        return value


class DataSettings(ImageSettings):
    """Images for calibration and recovery, and those to measure on."""

    test_data: str | None = setting(
        None, "images to measure on, `bundled` or `none`",
        none="bundled photos", flag="--test-data", on=("compress", "search"),
    )  # fmt: skip


class TrainDataSettings(ImageSettings):
    """Images to train on, and those to choose the best weights by."""

    val_data: str | None = setting(
        None, "held-out images to choose the best weights by, or `none`",
        none="some of --data", flag="--val-data", on=("train",),
    )  # fmt: skip
    val_images: Positive = setting(
        10, "how many: the last by name, of the training images at most a fifth",
        flag="--val-images", on=("train",),
    )  # fmt: skip


class AdaptDataSettings(TrainDataSettings):
    """Images with HR, and LR images without; `estimated` degrades HR as the latter look."""

    unpaired: str | None = setting(
        None, "LR images of the new kind, without HR: a folder, or a video file",
        flag="--unpaired", on=("adapt",),
    )  # fmt: skip
    degradation: Literal["estimated", "bicubic", "iso", "aniso", "nearest", "blur"] = "estimated"  # type: ignore[assignment]
    test_data: str | None = setting(
        None, "LR images of the new kind with HR, to measure on",
        none="none", flag="--test-data", on=("adapt",),
    )  # fmt: skip

    @field_validator("unpaired")
    @classmethod
    def _resolve_unpaired(cls, value: str | None) -> str | None:
        return absolute(value, keep=(), default="")

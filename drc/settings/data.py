"""Where images come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from drc.settings.base import FREE, File, Positive, Settings, Weight, Whole, setting

_EVERY = ("compress", "search", "prune", "finetune", "train", "adapt")


class ImageSettings(Settings):
    """Where training images come from."""

    data: File = setting(
        None,
        "images to train on, and to calibrate by: a folder, or a DIV2K tree",
        none="bundled photos",
        on=_EVERY,
    )
    workers: Whole = setting(
        0, "processes that load images; 0 loads in the main one", on=_EVERY, change=FREE
    )
    degradation: Literal["bicubic", "iso", "aniso", "nearest", "blur"] = setting(
        "bicubic",
        "how LR crops are made (bicubic takes LR files where there are some)",
        on=("train", "adapt"),
    )
    cache_gb: Weight = setting(
        4.0, "decoded images to keep in memory, in GiB, for all workers together", change=FREE
    )
    noise: Annotated[float, Field(ge=0, le=255)] = setting(
        0.0, "noise on the degraded LR crops, standard deviation in 8-bit levels"
    )

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

    test_data: File = setting(
        None,
        "images to measure on, `bundled` or `none`",
        none="bundled photos",
        on=("compress", "search"),
    )


class TrainDataSettings(ImageSettings):
    """Images to train on, and those to choose the best weights by."""

    val_data: File = setting(
        None,
        "held-out images to choose the best weights by, or `none`",
        none="some of --data",
        on=("train",),
    )
    val_images: Positive = setting(
        10, "how many: the last by name, of the training images at most a fifth", on=("train",)
    )


class AdaptDataSettings(TrainDataSettings):
    """Images with HR, and LR images without; `estimated` degrades HR as the latter look."""

    unpaired: File = setting(
        None, "LR images of the new kind, without HR: a folder, or a video file", on=("adapt",)
    )
    degradation: Literal["estimated", "bicubic", "iso", "aniso", "nearest", "blur"] = "estimated"  # type: ignore[assignment]
    test_data: File = setting(
        None, "LR images of the new kind with HR, to measure on", none="none", on=("adapt",)
    )

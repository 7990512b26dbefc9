"""ONNX files as networks; the only file of upscaling that imports onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from drc.errors import ModelError, UsageError, WeightsError
from drc.upscaling.network import Upscaler

_SIDES = (48, 64, 128)
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_FATAL_ONLY = 4


def onnx_upscaler(path: Path | str, device: str = "auto") -> Upscaler:
    """Open an ONNX file that maps `(N, C, h, w)` to `(N, C, h * scale, w * scale)`.

    The metadata `scale` and `value_range`, which `drc export` writes, say what they say; without
    them the scale is found by running the network on a small image, and the range is 0..1. Of a
    network with fixed sides, smaller images are extended by their edge pixels, larger ones are to
    be cut into tiles. Sides below the metadata `lr_least` are extended to it in the same way.

    Args:
        path: the file.
        device: auto, cpu, or cuda:N, for which onnxruntime needs its CUDA provider.

    Raises:
        UsageError: onnxruntime is not installed, or has no such device.
        WeightsError: the file is missing or unusable.
        ModelError: the network does not map images to larger ones.
    """
    session = _open(Path(path).expanduser(), device)
    if len(session.get_inputs()) != 1:
        given = ", ".join(entry.name for entry in session.get_inputs())
        raise ModelError(f"{path} needs {given}; drc takes ONNX networks of one input, the image")
    source = session.get_inputs()[0]
    kind, shape = _TYPES.get(source.type), source.shape
    if kind is None or len(shape) != 4:
        raise ModelError(
            f"{path} takes {source.type} of shape {shape}; drc takes ONNX networks of "
            "floating-point images (N, C, h, w)"
        )
    fixed = (shape[2], shape[3]) if all(isinstance(side, int) for side in shape[2:]) else None

    def call(lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        if fixed is not None:
            down, across = fixed[0] - height, fixed[1] - width
            lr = F.pad(lr, (0, across, 0, down), mode="replicate")
        (sr,) = session.run([session.get_outputs()[0].name], {source.name: lr.numpy().astype(kind)})
        found = torch.from_numpy(np.asarray(sr, np.float32))
        if fixed is None or found.ndim != 4:
            return found
        return found[
            ..., : height * found.shape[2] // fixed[0], : width * found.shape[3] // fixed[1]
        ]

    facts = session.get_modelmeta().custom_metadata_map
    enlarge = _at_least(call, facts.get("lr_least", ""))
    channels, scale = _probe(path, enlarge, shape[1], fixed)
    if facts.get("scale", str(scale)) != str(scale):
        raise ModelError(f"{path} says that it enlarges x{facts['scale']}, and it does x{scale}")
    return Upscaler(
        name=Path(path).name,
        scale=scale,
        channels=channels,
        value_range=_number(path, facts.get("value_range", "1")),
        device="cuda" if "CUDA" in session.get_providers()[0] else "cpu",
        call=enlarge,
        side=0 if fixed is None else min(fixed),
    )


def _open(path: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(
            f"{path}: running ONNX networks needs onnxruntime; install it with "
            "`pip install 'drc-sr[onnx]'`"
        ) from None
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}; pass an existing one")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    providers = _providers(onnxruntime.get_available_providers(), device)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common base
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: onnxruntime cannot open it ({reason})") from error


def _at_least(call: Callable[[Tensor], Tensor], least: str) -> Callable[[Tensor], Tensor]:
    """`call` on images that are extended by their edge pixels to sides of `least`, and cut back."""
    side = int(least) if least.isdecimal() else 0

    def extended(lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        down, across = max(side - height, 0), max(side - width, 0)
        if not down and not across:
            return call(lr)
        sr = call(F.pad(lr, (0, across, 0, down), mode="replicate"))
        scale = sr.shape[-1] // (width + across)
        return sr[..., : height * scale, : width * scale]

    return extended


def _providers(available: list[str], device: str) -> list[Any]:
    """What runs the network, by preference. Raises UsageError."""
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    name, _, number = device.partition(":")
    if name == "cpu" or (name == "auto" and cuda not in available):
        return [cpu]
    if name not in ("auto", "cuda") or not (number or "0").isdecimal():
        raise UsageError(f"{device!r} is not a device; use auto, cpu or cuda:N")
    if cuda not in available:
        raise UsageError(
            f"this onnxruntime does not run on {device}: install onnxruntime-gpu in its place, or "
            "use --device cpu"
        )
    return [(cuda, {"device_id": int(number or 0)}), cpu]


def _probe(
    path: Path | str, call: Any, channels: Any, fixed: tuple[int, int] | None
) -> tuple[int, int]:
    """The channels of the images, and the scale, found by running the network."""
    failure: Exception | None = None
    sizes = [fixed] if fixed is not None else [(side, side) for side in _SIDES]
    for size in sizes:
        for count in [channels] if isinstance(channels, int) else [3, 1]:
            try:
                sr = call(torch.full((1, count, *size), 0.5))
            except Exception as error:
                failure = failure or error
                continue
            shape = tuple(sr.shape)
            scale = shape[-1] // size[1]
            if shape != (1, count, size[0] * scale, size[1] * scale) or not scale:
                raise ModelError(
                    f"{path} turns (1, {count}, {size[0]}, {size[1]}) into {shape}; drc needs "
                    "images as large, or larger by a whole number, and of as many channels"
                )
            return count, scale
    reason = " ".join(str(failure).split())
    raise ModelError(f"{path} does not run on a small image ({reason})")


def _number(path: Path | str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise ModelError(f"{path}: its metadata say that white is {text!r}")
    return value


__all__ = ["onnx_upscaler"]

"""ONNX files as networks; the only file of upscaling that imports onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from drc.core.errors import ModelError, UsageError, WeightsError
from drc.core.probe import (
    CHANNELS,
    SIZES,
    NothingTakenError,
    Size,
    first_taken,
    noise,
    round_up,
    scale_between,
    smallest_multiple,
)
from drc.upscaling.network import Upscaler

_SIDE = 48
_LARGEST = 1024  # multiple, or smallest side
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_FATAL_ONLY = 4


def onnx_upscaler(path: Path | str, device: str = "auto") -> Upscaler:
    """Open an ONNX file that maps `(N, C, h, w)` to `(N, C, h * scale, w * scale)`.

    The metadata `scale`, `value_range`, `lr_multiple` and `lr_least`, which `drc export` writes,
    say what they say. Without them the scale and what sides must be multiples of are found by
    running the network on small images, and the range is 0..1. Images of other sides, or of smaller
    ones than the least, are extended by their edge pixels, and what the network makes of those is
    cut off. So it is with a network of fixed sides and smaller images; larger ones are to be cut
    into tiles.

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

    def run(lr: Tensor) -> Tensor:
        (sr,) = session.run([session.get_outputs()[0].name], {source.name: lr.numpy().astype(kind)})
        return torch.from_numpy(np.asarray(sr, np.float32))

    facts = session.get_modelmeta().custom_metadata_map
    fixed = (shape[2], shape[3]) if all(isinstance(side, int) for side in shape[2:]) else None
    stated = _whole_number(path, facts, "lr_multiple")
    least = _whole_number(path, facts, "lr_least") or 1
    channels, scale, multiple = _look_at(path, run, shape[1], fixed, stated, least)
    if facts.get("scale", str(scale)) != str(scale):
        raise ModelError(f"{path} says that it enlarges x{facts['scale']}, and it does x{scale}")

    def call(lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        size = fixed or tuple(round_up(max(side, least), multiple) for side in (height, width))
        sr = run(F.pad(lr, (0, size[1] - width, 0, size[0] - height), mode="replicate"))
        if tuple(sr.shape[2:]) != (size[0] * scale, size[1] * scale):
            return sr  # whose size `Upscaler` refuses
        return sr[..., : height * scale, : width * scale]

    return Upscaler(
        name=Path(path).name,
        scale=scale,
        channels=channels,
        value_range=_number(path, facts.get("value_range", "1")),
        device="cuda" if "CUDA" in session.get_providers()[0] else "cpu",
        call=call,
        side=0 if fixed is None else min(fixed),
        multiple=multiple,
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


def _look_at(
    path: Path | str,
    run: Callable[[Tensor], Tensor],
    channels: Any,
    fixed: Size | None,
    multiple: int | None,
    least: int,
) -> tuple[int, int, int]:
    """Channels, scale, and what sides are multiples of: as the file says, or as trying shows."""

    def probe(sizes: Sequence[Size]) -> tuple[int, int]:
        odd = list(sizes) == list(SIZES)  # where the network runs on one of them, it does on all
        found = {_probe(path, run, channels, size) for size in (sizes[:1] if odd else sizes)}
        if len(found) > 1:
            raise ModelError(f"{path} enlarges images of several sizes by several factors")
        return found.pop()

    if fixed is not None:
        return *probe([fixed]), 1
    if multiple is None:
        found, number = smallest_multiple(probe)
        return *found, number
    return *probe([(round_up(max(_SIDE, least), multiple),) * 2]), multiple


def _probe(
    path: Path | str, run: Callable[[Tensor], Tensor], channels: Any, size: Size
) -> tuple[int, int]:
    """The channels of the images, and the scale, found by running the network."""
    counts = [channels] if isinstance(channels, int) else CHANNELS[:2]
    try:
        lr, sr = first_taken(noise((count, *size) for count in counts), run)
    except NothingTakenError as refused:
        reason = " ".join(str(refused.failures[0][1]).split())
        raise ModelError(f"{path} does not run on a small image ({reason})") from None
    scale = scale_between(lr, sr) if sr.ndim == 4 and sr.shape[:2] == lr.shape[:2] else None
    if scale is None:
        raise ModelError(
            f"{path} turns {tuple(lr.shape)} into {tuple(sr.shape)}; drc needs "
            "images as large, or larger by a whole number, and of as many channels"
        )
    return lr.shape[1], scale


def _whole_number(path: Path | str, facts: Mapping[str, str], name: str) -> int | None:
    """What the metadata say of LR sides; None where they say nothing."""
    text = facts.get(name)
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) <= _LARGEST:
        raise ModelError(f"{path}: its metadata say that {name} is {text!r}; export it anew")
    return int(text)


def _number(path: Path | str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise ModelError(f"{path}: its metadata say that white is {text!r}")
    return value

"""`drc.export`: write a file, run it in its runtime, compare, time, and only then keep it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from drc import __version__
from drc.core.errors import ExportError, RunError, UsageError
from drc.core.probe import round_up
from drc.core.runtime import Progress
from drc.evaluation.benchmark import BUNDLED
from drc.exporters.attempt import Made, make
from drc.exporters.formats.base import (
    FLOAT,
    INT8,
    ConversionError,
    Format,
    Request,
    Runtime,
    get_format,
)
from drc.exporters.formats.onnx import OPSETS
from drc.exporters.measuring import measure_quality, measure_speed
from drc.exporters.parity import TOLERANCES
from drc.exporters.photos import calibration_images, check_images
from drc.exporters.result import UNFINISHED, Exported
from drc.exporters.wrapper import UnitNetwork

_TIMED = 96
_OPSETS = range(17, 24)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    to: str = "onnx",
    precision: str = FLOAT,
    lr_size: tuple[int, int] | None = None,
    opset: int | None = None,
    dense: nn.Module | None = None,
    dense_path: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = BUNDLED,
    runs: int = 5,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write a network for another runtime, and prove the file there before it gets its name.

    The file takes `(1, C, h, w)` in 0..1 and gives `(1, C, h * scale, w * scale)` in 0..1, not
    clamped. It is run on three real photos in its runtime, and compared with the network.

    Args:
        model: any SR network; it is not changed.
        path: the file to write, with or without the format's suffix.
        to: `onnx`, `pt2`, `openvino` or `ncnn`.
        precision: `fp32`, `fp16` or `int8`; which of them depends on the format.
        lr_size: height and width of the only LR image that the file is to take; None for any.
        opset: of ONNX; None for 17, or 18 where torch's newer exporter is needed.
        dense: the network before compression, to time beside it in the same runtime.
        dense_path: where to keep the dense network's file; None to keep none.
        data: images to calibrate int8 by: a folder; None for the bundled photos.
        test: images to measure the PSNR cost of fp16 and int8 on, as for `drc.evaluate`; None for
            no measurement.
        runs: timed passes; 0 for no timing.
        overwrite: replace files that exist.
        progress: called at every part of the work.

    Raises:
        UsageError: no such format or precision, a missing package, a file that exists, or an
            unusable size or opset.
        ModelError: the network does not run on a photo of that size.
        ExportError: no exporter knows all ops of the network, or the file's outputs differ; it is
            then kept beside, as `NAME.rejected.onnx` and the like.
        DataError: unusable images.
        RunError: the system refuses to write.
    """
    kind = get_format(to)
    kind.need(precision)
    _check_arguments(lr_size, opset, runs)
    target = kind.main_file(path)
    kept = None if dense_path is None else kind.main_file(dense_path)
    if not overwrite:
        _refuse_existing(file for main in (target, kept) if main for file in kind.files(main))
    report = progress or _silence
    network = UnitNetwork(model)
    images, multiple = check_images(network, lr_size)
    notes: list[str] = []
    if kept is not None:
        _make_folder(kept.parent)
    with _temporary_folder(target.parent) as folder:
        report(f"{to} {precision}", 0, 0, {})
        request = Request(
            network,
            images[0],
            None if lr_size is not None else images[1],
            multiple,
            precision,
            opset,
            _facts(network, precision, lr_size, multiple),
            calibration_images(network, data, lr_size) if precision == INT8 else (),
        )
        made = make(kind, request, images, folder / target.name, target)
        other = None
        if dense is not None and (runs or kept is not None):
            report(f"{to} {precision} of the dense network", 0, 0, {})
            try:
                other = _make_dense(kind, dense, request, images, folder, kept)
            except ExportError as error:
                if kept is not None:
                    raise
                notes.append(f"the dense network is not timed: {error}")
        speed = quality = None
        if runs:
            speed = measure_speed(
                made.runtime,
                network.traits,
                lr_size or (round_up(_TIMED, multiple),) * 2,
                dense=other.runtime if other is not None else None,
                float32=_in_float32(kind, request, made.way, folder, notes),
                runs=runs,
                name=f"latency in {to}",
                progress=progress,
            )
        # A file for one size cannot run whole photos.
        if precision != FLOAT and test is not None and lr_size is None and multiple == 1:
            report("PSNR of the file", 0, 0, {})
            quality = measure_quality(network, made.runtime, test, progress)
        size = sum(file.stat().st_size for file in kind.files(made.path))
        kind.move(made.path, target)
        if kept is not None and other is not None:
            kind.move(other.path, kept)
            notes.append(f"the dense network is kept as {kept.name}")
    return Exported(
        path=target,
        files=[file.name for file in kind.files(target)],
        bytes=size,
        format=to,
        precision=precision,
        exporter=made.way,
        opset=(opset or OPSETS[made.way]) if to == "onnx" else None,
        model=network.name,
        scale=network.traits.scale,
        channels=network.traits.channels,
        lr_size=lr_size,
        multiple=multiple,
        least=made.least,
        parity=made.checks,
        tolerance=TOLERANCES[precision],
        speed=speed,
        quality=quality,
        versions={"drc": __version__, **kind.known_versions()},
        notes=notes,
    )


def _check_arguments(lr_size: tuple[int, int] | None, opset: int | None, runs: int) -> None:
    if lr_size is not None and min(lr_size) < 1:
        raise UsageError(f"an LR image of {lr_size[0]}x{lr_size[1]} has no pixels")
    if opset is not None and opset not in _OPSETS:
        raise UsageError(f"--opset is {opset}; use one from {_OPSETS[0]} to {_OPSETS[-1]}")
    if runs < 0:
        raise UsageError(f"--runs is {runs}; pass the number of timed passes, or 0 for none")


def _refuse_existing(files: Iterable[Path]) -> None:
    for file in files:
        if file.exists():
            raise UsageError(f"{file} exists; pass --overwrite to replace it, or another --output")


def _facts(
    network: UnitNetwork, precision: str, lr_size: tuple[int, int] | None, multiple: int
) -> dict[str, str]:
    """What the file says of itself."""
    facts = {
        "model": network.name,
        "scale": str(network.traits.scale),
        "value_range": "1",
        "channels": str(network.traits.channels),
        "precision": precision,
        "drc_version": __version__,
        "lr_multiple": str(multiple),
    }
    return facts if lr_size is None else {**facts, "lr_size": f"{lr_size[0]}x{lr_size[1]}"}


def _make_dense(
    kind: Format,
    dense: nn.Module,
    request: Request,
    images: Sequence[Tensor],
    folder: Path,
    target: Path | None,
) -> Made:
    """The dense network in the same way; where nobody keeps it, no rejected file either."""
    network = UnitNetwork(dense)
    like = replace(request, network=network, facts={**request.facts, "model": network.name})
    path = folder / f"dense{kind.suffixes[0]}"
    return make(kind, like, images, path, target or path)


def _in_float32(
    kind: Format, request: Request, way: str, folder: Path, notes: list[str]
) -> Runtime | None:
    """The network's float32 file beside one of lower precision, to be timed with it."""
    if request.precision == FLOAT:
        return None
    path = folder / f"float32{kind.suffixes[0]}"
    try:
        kind.write(replace(request, precision=FLOAT, calibration=()), way, path)
        return kind.load(path, torch.get_num_threads())
    except ConversionError as error:
        notes.append(f"the float32 file is not timed: {error}")
        return None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}; pass another --output") from error


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """One inside `folder`, which is made; files move from it in one step."""
    _make_folder(folder)
    try:
        work = tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED)
    except OSError as error:
        raise RunError(
            f"cannot write into {folder}: {error.strerror}; pass another --output"
        ) from error
    with work as path:
        yield Path(path)


def _silence(what: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """In place of progress."""

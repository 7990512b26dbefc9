"""One file by one exporter after the other, until the runtime gives what the network gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from drc.core.errors import ExportError
from drc.exporters.formats.base import FLOAT, ConversionError, Format, Request, Runtime
from drc.exporters.parity import TOLERANCES, Check, check
from drc.exporters.smallest import smallest_of_file, smallest_of_network


@dataclass(frozen=True)
class Made:
    """A file, and how it does what the network does.

    Attributes:
        path: the main file.
        way: its exporter.
        runtime: in which it is open.
        checks: how near it is to the network.
        passes: whether that is near enough.
        least: the smallest LR side it takes; 1 where it takes one size.
    """

    path: Path
    way: str
    runtime: Runtime
    checks: list[Check]
    passes: bool
    least: int


def make(
    kind: Format, request: Request, images: Sequence[Tensor], path: Path, target: Path
) -> Made:
    """Try every way of the format until one gives a file that passes.

    A file says how small LR images may be, at first as small as the network takes; where the
    runtime wants larger ones it is written once more.

    Args:
        kind: the format.
        request: what to write.
        images: to check it on, `(1, C, h, w)` in 0..1, the first of the size it is traced at.
        path: where to write.
        target: the name it is to get; a file that does not pass is moved beside it, as
            `NAME.rejected.onnx` and the like.

    Raises:
        ExportError: there is no such file.
    """
    tolerance = TOLERANCES[request.precision]
    rejected = target.with_name(
        f"{target.name.removesuffix(kind.suffixes[0])}.rejected{kind.suffixes[0]}"
    )
    reasons: list[str] = []
    written: list[Check] | None = None
    least = 1
    if request.is_dynamic:
        least = smallest_of_network(request.network, request.example, request.multiple)
    for way in kind.ways:
        try:
            made = _write(kind, request, way, images, path, least)
            if request.is_dynamic and made.passes:
                found = smallest_of_file(
                    request.network, made.runtime, request.example, request.multiple,
                    tolerance, least,
                )  # fmt: skip
                if found != least:
                    made = _write(kind, request, way, images, path, found)
        except ConversionError as error:
            reasons.append(f"{way}: {error}")
            continue
        if made.passes:
            return made
        written = made.checks
        reasons.append(f"{way}: {_shortfall(made.checks, request)}")
        kind.move(path, rejected)
    raise _refusal(kind, request, reasons, written, rejected)


def _write(
    kind: Format, request: Request, way: str, images: Sequence[Tensor], path: Path, least: int
) -> Made:
    facts = {**request.facts, "lr_least": str(least)} if request.is_dynamic else request.facts
    kind.write(replace(request, facts=facts), way, path)
    runtime = kind.load(path, torch.get_num_threads())
    checks = check(request.network, runtime, images)
    passes = all(found.passes(TOLERANCES[request.precision]) for found in checks)
    return Made(path, way, runtime, checks, passes, least)


def _shortfall(checks: Sequence[Check], request: Request) -> str:
    """How the outputs of a file fall short, in words."""
    tolerance = TOLERANCES[request.precision]
    first = next(found for found in checks if not found.passes(tolerance))
    if first.failure is not None:
        what = first.failure
    else:
        allowed = f"at least {tolerance.psnr:g} dB"
        if tolerance.largest is not None:
            allowed = f"at most {tolerance.largest:g} and {allowed}"
        what = f"its output differs by {first.largest:.1e} ({first.psnr:.1f} dB; allowed {allowed})"
    if request.is_dynamic and checks[0].passes(tolerance):
        what += ", though it is right at the size it was traced at: the graph keeps that size"
    height, width = first.lr_size
    return f"at LR {height}x{width} {what}"


def _refusal(
    kind: Format,
    request: Request,
    reasons: Sequence[str],
    written: Sequence[Check] | None,
    rejected: Path,
) -> ExportError:
    what = f"no {kind.name} file of {request.network.name}: {'; '.join(reasons)}"
    advice = []
    # What is wrong at the very size that it was traced at stays so.
    if request.is_dynamic and (written is None or written[0].passes(TOLERANCES[request.precision])):
        advice.append("pass --lr-size HxW for a file of one size")
    if request.precision != FLOAT and written is not None:
        advice.append(f"leave --{request.precision} out")
    advice.append("choose another --to" if kind.name == "pt2" else "try --to pt2")
    kept = "" if written is None else f"; the file is kept as {rejected}"
    return ExportError(what, f"{', or '.join(advice)}{kept}")

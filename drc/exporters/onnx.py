"""ONNX, by torch's exporters; checked in onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from drc.exporters.base import (
    FLOAT,
    HALF,
    INT8,
    ConversionError,
    Format,
    Image,
    Request,
    Runtime,
    first_line,
    register,
)
from drc.exporters.wrapper import INPUT, OUTPUT

TORCHSCRIPT, DYNAMO = "torchscript", "dynamo"

OPSETS = {TORCHSCRIPT: 17, DYNAMO: 18}
"""By exporter: what onnxruntime 1.13 and TensorRT 8.6 read already; 18 is dynamo's oldest."""

LARGEST = 16384
"""The longest LR side that an exporter that wants a limit is told."""

_OPERATOR = re.compile(r"(?:operator|conversion function for)\W+((?:aten::|prim::)?[\w:.]+)")


@register
class Onnx(Format):
    """`NAME.onnx`: one file for onnxruntime, TensorRT and many others."""

    name = "onnx"
    suffixes = (".onnx",)
    precisions = (FLOAT, HALF, INT8)
    packages = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"
    ways = (TORCHSCRIPT, DYNAMO)  # the first is many times faster, and enough for most networks
    versions = ("torch", "onnx", "onnxruntime")

    def write(self, request: Request, way: str, path: Path) -> None:
        _export(request, way, path)
        if request.precision == HALF:
            from drc.exporters.precision import to_half

            to_half(path)
        elif request.precision == INT8:
            from drc.exporters.precision import to_int8

            to_int8(path, request.calibration)
        _describe(path, {**request.facts, "exporter": way})

    def load(self, path: Path, threads: int) -> Runtime:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised as well
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ConversionError(f"onnxruntime refuses the file: {first_line(error)}") from error
        name = session.get_inputs()[0].name

        def run(lr: Image) -> Image:
            return session.run(None, {name: lr})[0]

        return run


def _export(request: Request, way: str, path: Path) -> None:
    """Have torch write the float32 file."""
    opset = request.opset or OPSETS[way]
    sizes: dict[str, Any] = {}
    if request.is_dynamic and way == TORCHSCRIPT:
        sides = {2: "height", 3: "width"}
        sizes["dynamic_axes"] = {INPUT: sides, OUTPUT: {2: "sr_height", 3: "sr_width"}}
    elif request.is_dynamic:
        sizes["dynamic_shapes"] = {INPUT: open_sides()}
    if way == DYNAMO:
        sizes.update(external_data=False, verbose=False)
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(
                request.network,
                (request.example,),
                str(path),
                dynamo=way == DYNAMO,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                **sizes,
            )
    except Exception as error:  # exporters raise what they like
        raise ConversionError(_explain(error)) from error


def open_sides() -> dict[int, Any]:
    """Height and width of the LR image for torch.export: any size."""
    return {
        2: torch.export.Dim("height", min=8, max=LARGEST),
        3: torch.export.Dim("width", min=8, max=LARGEST),
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block exporters print nothing: warnings, graphs and progress of theirs."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            silence = io.StringIO()
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                yield
    finally:
        logging.disable(logging.NOTSET)


def _explain(error: Exception) -> str:
    """Name the op that the exporter lacks, if it says so anywhere along the chain of causes."""
    seen: BaseException | None = error
    while seen is not None:
        found = _OPERATOR.search(str(seen))
        if found:
            return f"it has no ONNX form of the op {found[1].strip('.')}"
        seen = seen.__cause__ or seen.__context__
    return first_line(error)


def _describe(path: Path, facts: dict[str, str]) -> None:
    """Write `facts` into the file's metadata."""
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, str(path))


__all__ = ["OPSETS", "Onnx", "open_sides", "quiet"]

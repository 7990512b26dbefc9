"""ONNX, by torch's exporters; checked in onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from drc.exporters.formats.base import (
    FLOAT,
    HALF,
    INT8,
    ConversionError,
    Format,
    Image,
    Request,
    Runtime,
    converting,
    first_line,
    register,
)
from drc.exporters.precision import to_half, to_int8
from drc.exporters.wrapper import INPUT, OUTPUT

TORCHSCRIPT, DYNAMO = "torchscript", "dynamo"

OPSETS = {TORCHSCRIPT: 17, DYNAMO: 18}
"""By exporter: what onnxruntime 1.13 and TensorRT 8.6 read already; 18 is dynamo's oldest."""

LARGEST = 16384
"""The longest LR side, for an exporter that wants a limit."""

Outcome = TypeVar("Outcome")

_OPERATOR = re.compile(
    r"(?:operator|conversion function for|OpOverload\(op=)\W+((?:aten::|prim::)?[\w:.]+)"
)


@register("onnx")
class Onnx(Format):
    """`NAME.onnx`: one file for onnxruntime, TensorRT and many others."""

    suffixes = (".onnx",)
    precisions = (FLOAT, HALF, INT8)
    packages = ("onnx", "onnxruntime", "onnxscript")
    ways = (TORCHSCRIPT, DYNAMO)  # the first is many times faster, and enough for most networks

    def write(self, request: Request, way: str, path: Path) -> None:
        _export(request, way, path)
        if request.precision == HALF:
            to_half(path)
        elif request.precision == INT8:
            to_int8(path, request.calibration)
        _describe(path, {**request.facts, "exporter": way})

    def load(self, path: Path, threads: int) -> Runtime:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised as well
        with converting("onnxruntime refuses the file"):
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        name = session.get_inputs()[0].name

        def run(lr: Image) -> Image:
            return session.run(None, {name: lr})[0]

        return run


def _export(request: Request, way: str, path: Path) -> None:
    """Have torch write the float32 file."""
    opset = request.opset or OPSETS[way]
    if way == DYNAMO and opset < OPSETS[DYNAMO]:
        raise ConversionError(f"it writes opset {OPSETS[DYNAMO]} and newer, not {opset}")

    def export(**sizes: Any) -> None:
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

    with converting(explain=_explain):
        if way == DYNAMO:
            plain = partial(export, external_data=False, verbose=False)
            with_open_sides(request, lambda sides: plain(dynamic_shapes=sides))
        elif request.is_dynamic:
            sides = {2: "height", 3: "width"}
            export(dynamic_axes={INPUT: sides, OUTPUT: {2: "sr_height", 3: "sr_width"}})
        else:
            export()


def with_open_sides(request: Request, export: Callable[[Any], Outcome]) -> Outcome:
    """What `export` makes with as small a limit on the LR image's sides as torch.export allows.

    Args:
        request: for images of any size, or of one.
        export: calls torch.export, with the `dynamic_shapes` that it is given.

    Raises:
        Exception: what the last try raised.
    """
    if not request.is_dynamic:
        return export(None)
    try:
        return export({INPUT: _sides(1)})
    except Exception:  # refused, as the code wants larger ones, or for another reason
        # Since torch 2.6 it finds the limit by itself.
        found = getattr(torch.export.Dim, "DYNAMIC", None)
        return export({INPUT: _sides(8) if found is None else {2: found, 3: found}})


def _sides(least: int) -> dict[int, Any]:
    dims = {2: "height", 3: "width"}
    return {n: torch.export.Dim(name, min=least, max=LARGEST) for n, name in dims.items()}


def _explain(error: Exception) -> str:
    """Name the op that the exporter lacks, if any of the chain of causes does; else the first."""
    seen: BaseException | None = error
    root: BaseException = error
    while seen is not None:
        found = _OPERATOR.search(str(seen))
        if found:
            return f"it has no ONNX form of the op {found[1].strip('.')}"
        seen = seen.__cause__ or seen.__context__
    while root.__cause__ is not None:
        root = root.__cause__
    return first_line(root)


def _describe(path: Path, facts: dict[str, str]) -> None:
    """Write `facts` into the file's metadata, and what is known of the output's shape."""
    import onnx

    model = onnx.load(str(path))
    dims = model.graph.output[0].type.tensor_type.shape.dim
    dims[0].dim_value, dims[1].dim_value = 1, int(facts["channels"])
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, str(path))

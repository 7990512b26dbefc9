"""OpenVINO's IR, made of the ONNX file, or of the network itself; checked in OpenVINO."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from drc.exporters.formats.base import (
    FLOAT,
    HALF,
    ConversionError,
    Format,
    Image,
    Request,
    Runtime,
    converting,
    first_line,
    get_format,
    register,
)
from drc.exporters.formats.onnx import DYNAMO, TORCHSCRIPT

_FROM_ONNX, _FROM_TORCH, _FROM_DYNAMO = "from ONNX", "from torch", "from ONNX by dynamo"

_OPERATOR = re.compile(r"\b(?:aten|prim|torchvision|onnx)::\w+|No conversion rule for (\w+)")


@register("openvino")
class OpenVino(Format):
    """`NAME.xml` and `NAME.bin`, for Intel CPUs, GPUs and NPUs."""

    suffixes = (".xml", ".bin")
    precisions = (FLOAT, HALF)
    packages = ("openvino",)
    ways = (_FROM_ONNX, _FROM_TORCH, _FROM_DYNAMO)

    def write(self, request: Request, way: str, path: Path) -> None:
        import openvino

        with converting(explain=_explain):
            if way == _FROM_TORCH:
                model = _from_torch(request)
            else:
                model = _from_onnx(request, TORCHSCRIPT if way == _FROM_ONNX else DYNAMO, path)
            for name, value in request.facts.items():
                model.set_rt_info(value, ["drc", name])
            half = request.precision == HALF
            openvino.save_model(model, str(path), compress_to_fp16=half)

    def load(self, path: Path, threads: int) -> Runtime:
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        with converting("OpenVINO refuses the file"):
            model = openvino.Core().compile_model(str(path), "CPU", settings)

        def run(lr: Image) -> Image:
            return model([lr])[0]

        return run


def _explain(error: Exception) -> str:
    """The ops that the converter lacks, if it names some."""
    ops = dict.fromkeys(found[0] for found in _OPERATOR.finditer(str(error)))
    return f"it has no form of the op {', '.join(ops)}" if ops else first_line(error)


def _from_onnx(request: Request, exporter: str, path: Path) -> Any:
    import openvino

    if importlib.util.find_spec("onnx") is None:
        raise ConversionError("the way over ONNX needs pip install 'drc-sr[onnx]'")
    middle = path.with_suffix(".middle.onnx")
    try:
        plain = replace(request, precision=FLOAT)
        get_format("onnx").write(plain, exporter, middle)
        return openvino.convert_model(str(middle))
    finally:
        middle.unlink(missing_ok=True)


def _from_torch(request: Request) -> Any:
    import openvino

    sides = (-1, -1) if request.is_dynamic else request.example.shape[2:]
    shape = [1, request.example.shape[1], *(int(side) for side in sides)]
    return openvino.convert_model(request.network, example_input=request.example, input=[shape])

"""ONNX files in half precision and in 8 bits, by onnxruntime's tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drc.exporters.formats.base import Image, converting
from drc.exporters.wrapper import INPUT

_IMAGE_CHANNELS = 4
"""Convolutions of no more inputs or outputs than this read or write images."""

_QUANTISED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def to_half(path: Path) -> None:
    """Turn a float32 file into one that stores and computes in float16; images stay float32.

    Raises:
        ConversionError: the converter fails.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with converting("onnxruntime's float16 converter"):
        model = convert_float_to_float16(onnx.load(str(path)), keep_io_types=True)
    onnx.save(model, str(path))


def to_int8(path: Path, calibration: Sequence[Image]) -> None:
    """Quantise a float32 file: 8-bit weights per channel, 8-bit activations, as QDQ pairs.

    Only convolutions and matrix products are, and of these not the ones that read or write
    images: they cost little time and most of the quality.

    Args:
        path: the file, which is replaced.
        calibration: LR images `(1, C, h, w)`, from which the ranges of activations are read.

    Raises:
        ConversionError: the quantiser fails.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name(f"{path.stem}.prepared.onnx")
    try:
        with converting("onnxruntime's quantiser"):
            quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(path),
                _reader(calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(_QUANTISED),
                nodes_to_exclude=_at_images(onnx.load(str(prepared))),
            )
            _drop_unused_domains(path)
    finally:
        prepared.unlink(missing_ok=True)


def _drop_unused_domains(path: Path) -> None:
    """Take out the operator sets that the quantiser names and no node is of.

    Runtimes refuse a file for a newer set than they know, used or not.
    """
    import onnx

    model = onnx.load(str(path))
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save(model, str(path))


def _reader(images: Sequence[Image]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Hands out the images one by one."""

        left = iter(images)

        def get_next(self) -> dict[str, Image] | None:
            image = next(self.left, None)
            return None if image is None else {INPUT: image}

    return Reader()


def _at_images(model: Any) -> list[str]:
    """The names of the convolutions that read or write images."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        outputs, inputs = shapes.get(node.input[1], [0, 0])[:2]
        if outputs <= _IMAGE_CHANNELS or inputs * groups <= _IMAGE_CHANNELS:
            found.append(node.name)
    return found

"""Whether a network, cut or dense, becomes an ONNX file that gives what the network gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import drc
from benchmarks.coverage.child import Log, forward, images
from benchmarks.zoo import networks

TOLERANCE = 1e-3  # of the output's magnitude


def export(log: Log, name: str, folder: Path, task: str) -> None:
    """Export one form of the network by one exporter, run the file, and record the difference."""
    _, what, exporter = task.split("_")
    inputs, _ = torch.load(folder / "expected.pt", weights_only=True)
    model = networks()[name].build()
    if what == "cut":
        model = drc.apply(model, folder / "small.safetensors")
    difference = _difference(model, inputs, folder / f"{task}.onnx", exporter == "dynamo")
    if difference > TOLERANCE:
        raise ValueError(f"onnxruntime's outputs differ by {difference:.1e}")
    log.facts(**{task: difference})


def _difference(model: nn.Module, inputs: Any, path: Path, dynamo: bool) -> float:
    """Export, run the file in onnxruntime, and return the largest relative difference."""
    import onnxruntime

    args = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    kwargs = inputs if isinstance(inputs, dict) else None
    torch.onnx.export(model, args, path, kwargs=kwargs, dynamo=dynamo, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    values = list(inputs.values()) if isinstance(inputs, dict) else list(args)
    names = [entry.name for entry in session.get_inputs()]
    feed = {n: v.numpy() for n, v in zip(names, values, strict=True)}
    found = [torch.from_numpy(x) for x in session.run(None, feed)]
    expected = images(forward(model, inputs))
    if [x.shape for x in found] != [x.shape for x in expected]:
        raise ValueError("the exported network gives other shapes")
    magnitude = max(x.abs().max().item() for x in expected)
    errors = [(x - y).abs().max().item() for x, y in zip(found, expected, strict=True)]
    return float(f"{max(errors) / max(magnitude, 1e-12):.2e}")

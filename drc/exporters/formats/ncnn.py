"""ncnn for phones, through pnnx; checked in ncnn."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
    register,
)

_INPUT, _OUTPUT = "in0", "out0"  # pnnx names them so
_PATIENCE = 1800  # seconds
_NAMED = 4


@register("ncnn")
class Ncnn(Format):
    """`NAME.ncnn.param` and `NAME.ncnn.bin`; images go in and out without a batch dimension."""

    suffixes = (".ncnn.param", ".ncnn.bin")
    precisions = (FLOAT, HALF)
    packages = ("ncnn", "pnnx")
    ways = ("pnnx",)

    def write(self, request: Request, way: str, path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pnnx-") as folder:
            _trace(request, Path(folder) / "net.pt")
            said = _convert(request, Path(folder))
            for end, file in zip(("param", "bin"), self.files(path), strict=True):
                made = Path(folder) / f"net.ncnn.{end}"
                if not made.is_file():
                    raise ConversionError(f"pnnx made no ncnn files: {first_line(said)}")
                shutil.move(made, file)
        unknown = _unknown_layers(path)
        if unknown:
            more = f" and {len(unknown) - _NAMED} others" if len(unknown) > _NAMED else ""
            named = ", ".join(unknown[:_NAMED])
            raise ConversionError(f"it has no ncnn layer for the op {named}{more}")

    def load(self, path: Path, threads: int) -> Runtime:
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = threads
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            if hasattr(net.opt, f"use_{name}"):
                setattr(net.opt, f"use_{name}", False)  # so that it computes in float32
        param, weights = self.files(path)
        if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
            raise ConversionError("ncnn refuses the file")

        def run(lr: Image) -> Image:
            extractor = net.create_extractor()
            extractor.input(_INPUT, ncnn.Mat(np.ascontiguousarray(lr[0])).clone())
            code, sr = extractor.extract(_OUTPUT)
            if code != 0:
                raise RuntimeError(f"ncnn ended with code {code}")
            return np.array(sr)[None]

        return run


def _trace(request: Request, path: Path) -> None:
    with converting("torch.jit.trace"):
        traced: Any = torch.jit.trace(request.network, request.example, check_trace=False)
        traced.save(str(path))


def _convert(request: Request, folder: Path) -> str:
    """Run pnnx on `net.pt` in `folder`; returns what it printed to stderr."""
    import pnnx

    half = int(request.precision == HALF)
    command = [pnnx.EXEC_PATH, "net.pt", f"inputshape={_shape(request.example)}", f"fp16={half}"]
    if request.second is not None:
        command.append(f"inputshape2={_shape(request.second)}")
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConversionError(f"pnnx did not end within {_PATIENCE} s") from None
    if done.returncode != 0:
        raise ConversionError(f"pnnx ended with code {done.returncode}: {first_line(done.stderr)}")
    return done.stderr


def _shape(image: torch.Tensor) -> str:
    return f"[{','.join(map(str, image.shape))}]f32"


def _unknown_layers(path: Path) -> list[str]:
    """The layer types in a parameter file that pnnx left under torch's names, each once."""
    lines = path.read_text("utf-8").splitlines()[2:]
    kinds = [line.split()[0] for line in lines if line.strip()]
    # Expressions are what pnnx makes of sizes; the op that needs them stands beside.
    unknown = [kind for kind in kinds if re.search(r"[.:]", kind) and kind != "pnnx.Expression"]
    return list(dict.fromkeys(unknown)) or [kind for kind in kinds if "." in kind][:1]

"""torch.export programs, which run in torch without the network's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from drc.exporters.formats.base import (
    ConversionError,
    Format,
    Image,
    Request,
    Runtime,
    first_line,
    quiet,
    register,
)
from drc.exporters.formats.onnx import with_open_sides


@register("pt2")
class Pt2(Format):
    """`NAME.pt2`: for `torch.export.load`, AOTInductor and ExecuTorch."""

    suffixes = (".pt2",)
    ways = ("torch.export",)

    def write(self, request: Request, way: str, path: Path) -> None:
        def export(sides: Any) -> torch.export.ExportedProgram:
            return torch.export.export(
                request.network, (request.example,), dynamic_shapes=sides, strict=False
            )

        try:
            with quiet(), torch.no_grad():
                program = with_open_sides(request, export)
                torch.export.save(program, str(path), extra_files={"drc.txt": _text(request)})
        except Exception as error:  # exporters raise what they like
            raise ConversionError(first_line(error)) from error

    def load(self, path: Path, threads: int) -> Runtime:
        try:
            with quiet():
                module = torch.export.load(str(path)).module()
        except Exception as error:
            raise ConversionError(f"torch refuses the file: {first_line(error)}") from error

        def run(lr: Image) -> Image:
            with torch.no_grad():
                return module(torch.from_numpy(lr)).numpy()

        return run


def _text(request: Request) -> Any:
    return "\n".join(f"{name}: {value}" for name, value in request.facts.items())

"""torch.export programs, which run in torch without the network's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from drc.exporters.formats.base import Format, Image, Request, Runtime, converting, register
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

        facts: Any = "\n".join(f"{name}: {value}" for name, value in request.facts.items())
        with converting():
            program = with_open_sides(request, export)
            torch.export.save(program, str(path), extra_files={"drc.txt": facts})

    def load(self, path: Path, threads: int) -> Runtime:
        with converting("torch refuses the file"):
            module = torch.export.load(str(path)).module()

        def run(lr: Image) -> Image:
            with torch.no_grad():
                return module(torch.from_numpy(lr)).numpy()

        return run

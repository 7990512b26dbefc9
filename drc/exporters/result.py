"""What an export made and measured, as text and as `export.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from drc.core.errors import RunError
from drc.core.files import write_json
from drc.exporters.parity import Check, Tolerance
from drc.store.plan import check_version

SCHEMA_VERSION = 1
RECORD = "export.json"
UNFINISHED = ".export-"
"""How the names of temporary folders begin, in the folder where the files are to go."""

_FORMAT = "drc-export"
_FASTER = 1.05
"""From this ratio of times on a file counts as faster."""


@dataclass(frozen=True)
class Speed:
    """Median time of one image in the file's runtime.

    Attributes:
        median_ms: of the file.
        dense_ms: of the dense network's file, in turns with it; None without one.
        speedup: the second over the first.
        float32_ms: of the network's file in float32, in turns with one of lower precision; None
            for float32 itself.
        lr_size: height and width of the LR image.
        runs: timed passes of each.
        threads: of the CPU.
    """

    median_ms: float
    dense_ms: float | None
    speedup: float | None
    float32_ms: float | None
    lr_size: tuple[int, int]
    runs: int
    threads: int

    def __str__(self) -> str:
        text = f"latency at LR {_size(self.lr_size)}: {self.median_ms:,.1f} ms"
        if self.dense_ms is not None:
            text += f", dense {self.dense_ms:,.1f} ms, {self.speedup:.2f}x"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{text} (median of {self.runs}, {threads})"


@dataclass(frozen=True)
class Quality:
    """PSNR on the luma, in dB, of the network and of the file.

    Attributes:
        data: what was measured on, in words.
        network: PSNR of the float32 network.
        file: PSNR of the file in its runtime.
        cost: the difference.
    """

    data: str
    network: float
    file: float
    cost: float


@dataclass(frozen=True)
class Exported:
    """One file, and what was found in its runtime.

    Attributes:
        path: the main file.
        files: names of all its files.
        bytes: their size together.
        format: `onnx`, `pt2`, `openvino` or `ncnn`.
        precision: `fp32`, `fp16` or `int8`.
        exporter: what made it.
        opset: of ONNX; None for other formats.
        model: registered name, or the class of another network.
        scale: HR side over LR side.
        channels: of the images.
        lr_size: height and width of the only LR image it takes; None for any.
        multiple: what the LR image's sides must be multiples of.
        least: the smallest side of an LR image; 1 where it takes one size.
        parity: the file against the network, on real photos.
        tolerance: what was allowed.
        speed: None where it was not timed.
        quality: what the precision costs; None for float32.
        versions: of the exporter's and the runtime's packages.
        notes: what else must be known, one sentence each.
    """

    path: Path
    files: list[str]
    bytes: int
    format: str
    precision: str
    exporter: str
    opset: int | None
    model: str
    scale: int
    channels: int
    lr_size: tuple[int, int] | None
    multiple: int
    least: int
    parity: list[Check]
    tolerance: Tolerance
    speed: Speed | None
    quality: Quality | None
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `export.json` holds them."""
        return {**asdict(self), "path": str(self.path)}

    def lines(self) -> Iterator[str]:
        """For people."""
        opset = "" if self.opset is None else f", opset {self.opset}"
        maker = self.exporter if self.exporter.startswith("from") else f"by {self.exporter}"
        yield str(self.path)
        yield (
            f"  {self.format} {self.precision}, {maker}{opset}; {self._sizes()}; "
            f"{self.bytes / 1e6:,.2f} MB"
        )
        checked = ", ".join(_size(entry.lr_size) for entry in self.parity)
        largest = max(entry.largest or 0.0 for entry in self.parity)
        psnr = min(entry.psnr or 0.0 for entry in self.parity)
        yield f"  against the network on LR {checked}: differs by {largest:.1e}, {psnr:.1f} dB"
        if self.speed is not None:
            yield f"  {self.speed}"
            if self.speed.float32_ms is not None:
                yield f"  {self._against_float32(self.speed.median_ms, self.speed.float32_ms)}"
        if self.quality is not None:
            found = self.quality
            yield (
                f"  PSNR on {found.data}: {found.file:.2f} dB, float32 {found.network:.2f} dB, "
                f"cost {round(found.cost, 2) + 0.0:.2f} dB"
            )
        for note in self.notes:
            yield f"  note: {note}"

    def _sizes(self) -> str:
        """What LR images it takes, in words."""
        if self.lr_size is not None:
            return f"LR {_size(self.lr_size)} alone"
        limits = []
        if self.multiple > 1:
            limits.append(f"in multiples of {self.multiple}")
        if self.least > self.multiple:
            limits.append(f"of at least {self.least}")
        return f"LR sides {', '.join(limits)}" if limits else "any LR size"

    def _against_float32(self, own: float, plain: float) -> str:
        ratio = plain / own
        found = f"{ratio:.2f}x as fast as float32 here ({plain:,.1f} ms)"
        if ratio < _FASTER:
            found = f"not faster than float32 here ({plain:,.1f} ms, {ratio:.2f}x), only smaller"
        return f"{self.precision} is {found}"


def record(exported: Exported) -> Path:
    """Add an entry to the `export.json` beside the file; an older one of the same file goes.

    Raises:
        RunError: the record there is damaged or of a newer drc, or the system refuses.
    """
    path = exported.path.parent / RECORD
    entry = {"file": exported.path.name, **exported.to_dict()}
    del entry["path"]
    kept = [old for old in _read_record(path) if old["file"] != entry["file"]]
    write_json(
        path,
        {"format": _FORMAT, "schema_version": SCHEMA_VERSION, "exports": [*kept, entry]},
    )
    return path


def check_folder(folder: Path) -> None:
    """Raise RunError unless files may go there: into a new folder, or beside earlier exports.

    What failed or killed exports leave is not in the way; a record that is damaged, or of a newer
    drc, is.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; pass --output with a folder")
    left = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    others = [name for name in left if ".rejected." not in name and not name.startswith(UNFINISHED)]
    if others and not _read_record(folder / RECORD):
        raise RunError(
            f"{folder} exists and holds something else than exports of drc's; pass --output with "
            "a new folder"
        )


def _read_record(path: Path) -> list[dict[str, Any]]:
    """The entries of an `export.json`; none where there is no such file. Raises RunError."""
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text("utf-8"))
        exports = content["exports"]
        known = content["format"] == _FORMAT and all("file" in entry for entry in exports)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise RunError(f"{path} is not a record of drc's exports; choose another --output")
    check_version(content.get("schema_version"), SCHEMA_VERSION, path)
    return exports


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

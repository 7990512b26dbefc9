"""TIFF files of kinds that neither tifffile nor Pillow writes, tag by tag."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

_COMPRESSION, _OFFSETS, _COUNTS = 259, (273, 324), (279, 325)
_COPIED = (256, 257, 258, 262, 274, 277, 278, 284, 317, 322, 323, 338)


def write_tags(
    path: Path, tags: dict[int, Sequence[int]], segments: list[bytes], order: str = "<"
) -> None:
    """Write a file of `segments`, strips or tiles, whose places are added to `tags`."""
    tiled = int(322 in tags)
    tags = {
        **tags,
        _COUNTS[tiled]: [len(s) for s in segments],
        _OFFSETS[tiled]: [0] * len(segments),
    }
    tags = dict(sorted(tags.items()))
    at = 8 + 2 + 12 * len(tags) + 4
    places = {}
    for code, values in tags.items():
        if len(values) > 1:
            places[code] = at
            at += 4 * len(values)
    starts = at + np.cumsum([0, *(len(s) for s in segments)])[:-1]
    tags[_OFFSETS[tiled]] = starts.tolist()
    magic = (b"II" if order == "<" else b"MM", 42, 8, len(tags))
    data = struct.pack(f"{order}2sHIH", *magic)
    for code, values in tags.items():
        value = places.get(code, values[0])
        data += struct.pack(f"{order}HHII", code, 4, len(values), value)
    data += bytes(4)
    for code in places:
        data += struct.pack(f"{order}{len(tags[code])}I", *tags[code])
    path.write_bytes(data + b"".join(segments))


def write_by_libtiff(path: Path, values: np.ndarray, compression: str, **options: Any) -> None:
    """As `tifffile.imwrite`, with strips or tiles compressed as Pillow calls it, such as LZW."""
    draft = io.BytesIO()
    tifffile.imwrite(draft, values, compression="zlib", metadata=None, **options)
    draft.seek(0)
    with tifffile.TiffFile(draft) as file:
        page, data = file.pages.first, draft.getvalue()
        tags = {}
        for code in _COPIED:
            if code in page.tags:
                value = page.tags[code].value
                tags[code] = [int(v) for v in (value if isinstance(value, tuple) else (value,))]
        parts = zip(page.dataoffsets, page.databytecounts, strict=True)
        made = [
            _compressed(zlib.decompress(data[at : at + size]), compression) for at, size in parts
        ]
    tags[_COMPRESSION] = [made[0][0]]
    write_tags(path, tags, [part for _, part in made], options.get("byteorder", "<"))


def _compressed(data: bytes, compression: str) -> tuple[int, bytes]:
    """The number of the compression, and the data compressed by libtiff."""
    file = io.BytesIO()
    Image.frombytes("L", (len(data), 1), data).save(file, "TIFF", compression=compression)
    file.seek(0)
    with tifffile.TiffFile(file) as made:
        page = made.pages.first
        (at,), (size,) = page.dataoffsets, page.databytecounts
        return int(page.compression), file.getvalue()[at : at + size]

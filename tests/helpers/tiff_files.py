"""TIFF files of kinds that neither tifffile nor Pillow writes, tag by tag."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_OFFSETS, _COUNTS = (273, 324), (279, 325)


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

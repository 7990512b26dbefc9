"""Decoded images in memory that the workers of a loader share."""

from __future__ import annotations

import mmap
import multiprocessing
from typing import Any

import torch
from torch import Tensor

_WORD = 8  # bytes of an int64
_COLUMNS = 5  # of the table: where an image begins, height and width of its one or two parts


class ImageCache:
    """Keeps images by number, each of one or two parts, until its memory is full.

    The memory is there before workers are forked, so all of them read what any has decoded, and
    what they leave serves those of the next pass. Where workers are not forked but spawned, each
    has a part of the limit for itself.

    Args:
        count: of the images.
        limit: bytes at most, taken from the system as images come. Nothing is kept where it does
            not promise as many.
    """

    def __init__(self, count: int, limit: int) -> None:
        self._count = count
        self._limit = limit
        self._create()

    def _create(self) -> None:
        table = (1 + _COLUMNS * self._count) * _WORD
        try:
            memory = mmap.mmap(-1, table + self._limit + 1)  # shared and zero; never empty
        except OSError:  # the system promises no more than it has
            self._limit = 0
            memory = mmap.mmap(-1, table + 1)
        words = torch.frombuffer(memory, dtype=torch.int64, count=table // _WORD)
        self._used, self._table = words[:1], words[1:].view(self._count, _COLUMNS)
        self._bytes = torch.frombuffer(memory, dtype=torch.uint8, offset=table)
        self._lock = multiprocessing.Lock()

    def __getstate__(self) -> dict[str, int]:
        return {"count": self._count, "limit": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        worker = torch.utils.data.get_worker_info()
        self.__init__(state["count"], state["limit"] // (worker.num_workers if worker else 1))  # type: ignore[misc]

    def fits(self, size: int) -> bool:
        """Whether there is room for an image of `size` bytes."""
        return int(self._used) + size <= self._limit

    def get(self, number: int) -> tuple[Tensor, ...] | None:
        """The parts of an image, `(3, H, W)` uint8, not to be written to; None for one not kept."""
        with self._lock:
            begin, *sides = self._table[number].tolist()
        if not begin:
            return None
        parts, at = [], begin - 1
        for height, width in (sides[:2], sides[2:]):
            size = 3 * height * width
            if size:
                parts.append(self._bytes[at : at + size].view(3, height, width))
            at += size
        return tuple(parts)

    def put(self, number: int, parts: tuple[Tensor, ...]) -> None:
        """Keep an image, `(3, H, W)` uint8 each, if it fits and no other process was first."""
        size = sum(part.numel() for part in parts)
        with self._lock:
            if self._table[number, 0] or not self.fits(size):
                return
            begin = int(self._used)
            self._used += size
        at = begin
        for part in parts:
            self._bytes[at : at + part.numel()] = part.flatten()
            at += part.numel()
        sides = [side for part in parts for side in part.shape[1:]]
        with self._lock:  # which is what makes the pixels visible before the entry
            self._table[number, 1 : 1 + len(sides)] = torch.tensor(sides)
            self._table[number, 0] = begin + 1

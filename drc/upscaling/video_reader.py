"""Video files as upright frames and packets of sound; what is wrong with them is a `DataError`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drc.core.errors import DataError

BT709 = 1
"""The YUV of high definition, as files tell it."""

_UNKNOWN, _BT601 = 2, (5, 6)
_TOLERATED = 0.1  # of the packets


@dataclass(frozen=True)
class Frame:
    """A frame, upright: `(H, W, 3)`; when it is shown; and which YUV it was and is to be."""

    levels: npt.NDArray[np.uint8]
    pts: int | None
    time_base: Any
    colorspace: int


class Reader:
    """An open video; damaged packets are left out, up to a tenth of them.

    Attributes:
        picture: the stream of pictures.
        sound: the streams of sound.
        damaged: why packets are left out, of those read so far.
    """

    def __init__(self, av: Any, container: Any, path: Path) -> None:
        self.av, self._container, self._path = av, container, path
        self.picture = container.streams.video[0]
        self.picture.thread_type = "AUTO"
        self.sound = list(container.streams.audio)
        self.damaged: list[str] = []

    def first(self) -> Frame:
        """The first frame, from a file opened anew."""
        with open_video(self.av, self._path) as again:
            return next(again.read())

    def read(self, sound: Mapping[int, Any] | None = None) -> Iterator[Any]:
        """Frames, as `Frame`, and packets of the streams in `sound`, in the order of the file.

        Raises:
            DataError: too much is damaged, or nothing is left.
        """
        packets = frames = 0
        with _told(self.av, self._path):
            for packet in self._packets(sound or {}):
                if packet.stream.index != self.picture.index:
                    if packet.dts is not None:
                        yield packet
                    continue
                packets += 1
                try:
                    for frame in packet.decode():
                        frames += 1
                        yield _frame(frame)
                except self.av.error.InvalidDataError as error:
                    self.damaged.append(error.strerror or "invalid data")
        if not frames or len(self.damaged) > _TOLERATED * packets:
            raise DataError(
                f"{self._path}: {len(self.damaged)} of {packets} packets are damaged; replace or "
                "remove the video"
            )

    def _packets(self, sound: Mapping[int, Any]) -> Iterator[Any]:
        return self._container.demux([self.picture, *(s for s in self.sound if s.index in sound)])


def _frame(frame: Any) -> Frame:
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise, to be upright
    levels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
    known = frame.colorspace in (_UNKNOWN, *_BT601)
    return Frame(levels, frame.pts, frame.time_base, frame.colorspace if known else BT709)


@contextmanager
def open_video(av: Any, path: Path) -> Iterator[Reader]:
    """Open a video for the block.

    Raises:
        DataError: it is unreadable, or holds no pictures.
    """
    with _told(av, path):
        container = av.open(str(path))
    with container:
        if not container.streams.video:
            raise DataError(f"{path}: there is no video in this file")
        yield Reader(av, container, path)


@contextmanager
def _told(av: Any, path: Path) -> Iterator[None]:
    """What reading raises within the block becomes a `DataError`."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path}: unreadable video ({reason}); replace or remove it") from error


__all__ = ["BT709", "Frame", "Reader", "open_video"]

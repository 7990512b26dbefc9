"""Frames and sound of video files, through PyAV, an optional extra."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drc.core.errors import DataError, UsageError

VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
"""File name endings (in lower case) that count as videos."""

BT709 = 1
"""The YUV of high definition, as files number it."""

_UNKNOWN, _BT601 = 2, (5, 6)
_MOST_BYTES = 2 << 30
_TOLERATED = 0.1  # of the packets


@dataclass(frozen=True)
class Frame:
    """A frame, upright: `(H, W, 3)`; when it is shown; and which YUV it was and is to be."""

    levels: npt.NDArray[np.uint8]
    pts: int | None
    time_base: Any
    colorspace: int


class Video:
    """An open video; damaged packets are left out, up to a tenth of them.

    Attributes:
        av: the module of PyAV.
        picture: the stream of pictures.
        sound: the streams of sound.
        packets: how many of pictures were read so far.
        damaged: why packets are left out, of those.
    """

    def __init__(self, av: Any, container: Any, path: Path | str) -> None:
        self.av, self._container, self._path = av, container, path
        self.picture = container.streams.video[0]
        self.picture.thread_type = "AUTO"
        self.sound = list(container.streams.audio)
        self.packets = 0
        self.damaged: list[str] = []

    def first(self) -> Frame:
        """The first frame, from a file opened anew."""
        with open_video(self._path) as again:
            return next(again.read())

    def key_frames(self) -> list[bool]:
        """Of every packet, whether it holds a key frame; read without decoding."""
        with _as_data_errors(self.av, self._path):
            return [p.is_keyframe for p in self._container.demux(self.picture) if p.size]

    def read(self, sound: Collection[int] = (), only_keys: bool = False) -> Iterator[Any]:
        """Frames, as `Frame`, and packets of sound, in the order of the file.

        Args:
            sound: indices of the streams of sound to read.
            only_keys: whether key frames alone are decoded.

        Raises:
            DataError: too much is damaged, or nothing is left.
        """
        if only_keys:
            self.picture.codec_context.skip_frame = "NONKEY"
        streams = [self.picture, *(stream for stream in self.sound if stream.index in sound)]
        frames = 0
        with _as_data_errors(self.av, self._path):
            for packet in self._container.demux(streams):
                if packet.stream.index != self.picture.index:
                    if packet.dts is not None:
                        yield packet
                    continue
                self.packets += packet.size > 0  # the last one, which is empty, drains the decoder
                try:
                    for frame in packet.decode():
                        frames += 1
                        yield _upright(frame)
                except self.av.error.InvalidDataError as error:
                    self.damaged.append(error.strerror or "invalid data")
        if not frames or len(self.damaged) > _TOLERATED * self.packets:
            raise DataError(
                f"{self._path}: {len(self.damaged)} of {self.packets} packets are damaged; replace "
                "or remove the video"
            )


@contextmanager
def open_video(path: Path | str) -> Iterator[Video]:
    """Open a video for the block.

    Raises:
        UsageError: PyAV is not installed.
        DataError: it is missing or unreadable, or holds no pictures.
    """
    try:
        import av
    except ImportError:
        raise UsageError(
            f"{path}: reading videos needs PyAV; install it with `pip install 'drc-sr[video]'`"
        ) from None
    with _as_data_errors(av, path):
        container = av.open(str(path))
    with container:
        if not container.streams.video:
            raise DataError(f"{path}: there is no video in this file")
        yield Video(av, container, path)


def read_frames(
    path: Path | str, most: int = 200, on_skip: Callable[[str], None] | None = None
) -> list[Tensor]:
    """Decode evenly spaced frames of a video.

    Where a video has as many key frames as are wanted, only those are decoded, so that a long film
    does not take its own length. Damaged packets are left out, up to a tenth of them.

    Args:
        path: a file that FFmpeg reads.
        most: frames at most; fewer where they would exceed 2 GiB.
        on_skip: given one line on damaged packets.

    Returns:
        In their order, `(3, H, W)`, uint8, RGB, upright.

    Raises:
        UsageError: PyAV is not installed.
        DataError: no such file, no video in it, or too much of it is damaged.
    """
    with open_video(path) as video:
        keys = video.key_frames()
        frame_bytes = 3 * video.picture.codec_context.height * video.picture.codec_context.width
    if not keys or not frame_bytes:
        raise DataError(f"{path}: there are no frames in this video")
    most = max(min(most, _MOST_BYTES // frame_bytes), 1)
    only_keys = sum(keys) >= most
    total = sum(keys) if only_keys else len(keys)
    wanted = set(np.linspace(0, total - 1, min(most, total)).round().astype(int).tolist())
    with open_video(path) as video:
        decoded = enumerate(video.read(only_keys=only_keys))
        frames = [_to_tensor(frame) for number, frame in decoded if number in wanted]
    if video.damaged and on_skip is not None:
        of = f"{len(video.damaged)} of {video.packets} packets of {path}"
        on_skip(f"skipped {of}: {video.damaged[0]}")
    return frames


@contextmanager
def _as_data_errors(av: Any, path: Path | str) -> Iterator[None]:
    """What reading raises within the block becomes a `DataError`."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such video file") from None
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path}: unreadable video ({reason}); replace or remove it") from error


def _upright(frame: Any) -> Frame:
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise, to be upright
    levels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
    known = frame.colorspace in (_UNKNOWN, *_BT601)
    return Frame(levels, frame.pts, frame.time_base, frame.colorspace if known else BT709)


def _to_tensor(frame: Frame) -> Tensor:
    return torch.from_numpy(frame.levels.transpose(2, 0, 1).copy())

"""Frames of video files, decoded through PyAV, an optional extra."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drc.core.errors import DataError, UsageError

VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
"""File name endings (in lower case) that count as videos."""

_MOST_BYTES = 2 << 30
_TOLERATED = 0.1  # of the packets


def read_frames(
    path: Path | str, most: int = 200, on_skip: Callable[[str], None] | None = None
) -> list[Tensor]:
    """Decode evenly spaced frames of a video.

    Where a video has as many key frames as are wanted, only those are decoded, so that a long film
    does not take its own length. Damaged packets are left out, up to a tenth of them.

    Args:
        path: a file that FFmpeg reads.
        most: frames at most; fewer where they would exceed 2 GiB.
        on_skip: told in one line of damaged packets.

    Returns:
        In their order, `(3, H, W)`, uint8, RGB.

    Raises:
        UsageError: PyAV is not installed.
        DataError: no such file, no video in it, or too much of it is damaged.
    """
    av = import_av(path)
    damaged: list[str] = []
    try:
        packets, keys, frame_bytes = _count(av, path)
        most = max(min(most, _MOST_BYTES // frame_bytes), 1)
        total = keys if keys >= most else packets
        wanted = set(np.linspace(0, total - 1, min(most, total)).round().astype(int).tolist())
        decoded = enumerate(_decode(av, path, keys >= most, damaged))
        frames = [_to_tensor(frame) for number, frame in decoded if number in wanted]
    except FileNotFoundError:
        raise DataError(f"{path}: no such video file") from None
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path}: unreadable video ({reason}); replace or remove it") from error
    if not frames or len(damaged) > _TOLERATED * packets:
        raise DataError(
            f"{path}: {len(damaged)} of {packets} packets are damaged; replace or remove the video"
        )
    if damaged and on_skip is not None:
        on_skip(f"skipped {len(damaged)} of {packets} packets of {path}: {damaged[0]}")
    return frames


def import_av(path: Path | str) -> Any:
    """The module of PyAV. Raises UsageError where it is not installed."""
    try:
        import av
    except ImportError:
        raise UsageError(
            f"{path}: reading videos needs PyAV; install it with `pip install 'drc-sr[video]'`"
        ) from None
    return av


def _count(av: Any, path: Path | str) -> tuple[int, int, int]:
    """Packets, those with key frames, and the bytes of a frame; read without decoding."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise DataError(f"{path}: there is no video in this file")
        stream = container.streams.video[0]
        keys = [packet.is_keyframe for packet in container.demux(stream) if packet.size]
        frame_bytes = 3 * stream.codec_context.height * stream.codec_context.width
    if not keys or not frame_bytes:
        raise DataError(f"{path}: there are no frames in this video")
    return len(keys), sum(keys), frame_bytes


def _decode(av: Any, path: Path | str, only_keys: bool, damaged: list[str]) -> Iterator[Any]:
    """The frames in order of time; why packets could not be decoded goes to `damaged`."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if only_keys:
            stream.codec_context.skip_frame = "NONKEY"
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError as error:
                damaged.append(error.strerror or "invalid data")


def _to_tensor(frame: Any) -> Tensor:
    levels = frame.to_ndarray(format="rgb24")
    return torch.from_numpy(levels.transpose(2, 0, 1).copy())


__all__ = ["VIDEO_SUFFIXES", "import_av", "read_frames"]

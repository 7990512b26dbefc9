"""Videos through a network: a new video with the old sound, or a folder of frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drc.artifacts.atomic import atomic_write
from drc.data.photo import Photo
from drc.data.photo_files import write_photo
from drc.data.video import VIDEO_SUFFIXES, import_av
from drc.errors import DataError, UsageError
from drc.runtime import Progress
from drc.upscaling.enlarge import Enlarger
from drc.upscaling.jobs import Naming, is_folder, refuse_existing
from drc.upscaling.run import Outcome

_CODECS = {".webm": ("libvpx-vp9", {"crf": "20", "b:v": "0"})}
_USUAL_CODEC = ("libx264", {"crf": "16"})
_TOLERATED = 0.1  # of the packets
_BT709, _UNKNOWN, _BT601 = 1, 2, (5, 6)  # as files tell
_SWSCALE_BT601 = 5

Levels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Film:
    """A video, and what it becomes.

    Attributes:
        source: the video file.
        target: a video file, or a folder.
        frames: whether it is a folder of frames.
        naming: of the frames.
        goes_on: frames that are there already are left as they are.
    """

    source: Path
    target: Path
    frames: bool
    naming: Naming
    goes_on: bool

    @classmethod
    def plan(cls, source: Path, out: str, naming: Naming, goes_on: bool, overwrite: bool) -> Film:
        """Tell by `out` what is wanted.

        Raises:
            UsageError: it is neither a folder nor a video's name, or is there already.
        """
        target = Path(out)
        frames = is_folder(out) or not target.suffix
        if not frames and target.suffix.lower() not in VIDEO_SUFFIXES:
            endings = ", ".join(sorted(VIDEO_SUFFIXES))
            raise UsageError(f"{out}: a video becomes {endings}, or a folder of frames")
        if not frames and (goes_on or naming != Naming()):
            raise UsageError(
                "--resume, --format and --suffix are for images; to be able to go on, name a "
                "folder for the frames"
            )
        if not frames and target.exists() and target.resolve() == source.resolve():
            raise UsageError(f"{out} would replace its own input; name another file")
        if not overwrite and not frames:
            refuse_existing(target)
        if frames and not (goes_on or overwrite) and target.is_dir() and any(target.iterdir()):
            raise UsageError(
                f"{target} is not empty; pass --resume to make the frames that are missing, "
                "--overwrite, or another folder"
            )
        return cls(source, target, frames, naming, goes_on)

    def frame_path(self, number: int) -> Path:
        return self.target / self.naming.of(Path(f"frame_{number:06d}.png"))


def enlarge_video(
    film: Film,
    enlarger: Enlarger,
    outcome: Outcome,
    quality: int,
    tell: Callable[[str], None],
    progress: Progress,
) -> None:
    """Enlarge a video frame by frame; `outcome` is kept up to date.

    Raises:
        UsageError: PyAV is not installed.
        DataError: the video is unreadable.
        RunError: the output cannot be written.
        ModelError: the network fails.
    """
    av = import_av(film.source)
    outcome.unit, outcome.resumable = "frames", film.frames
    start = time.perf_counter()

    def count(path: Path, height: int, width: int) -> None:
        outcome.written.append(path)
        outcome.pixels += height * width
        step()

    def step() -> None:
        outcome.seconds = time.perf_counter() - start
        progress("upscale", outcome.done, outcome.total, {"MP/s": outcome.megapixels_per_second})

    with _opened(av, film.source) as reader:
        outcome.total = reader.picture.frames
        if film.frames:
            for number, frame in enumerate(reader.read(), 1):
                path = film.frame_path(number)
                if film.goes_on and path.exists():
                    outcome.present += 1
                    step()
                    continue
                photo = enlarger(Photo(frame.levels), f"frame {number}")
                write_photo(path, photo, quality)
                count(path, *photo.size)
        else:
            with atomic_write(film.target) as temporary:
                _Writer(film, reader, enlarger, temporary).run(tell, count)
    outcome.total = outcome.done
    if reader.damaged:
        tell(f"skipped {len(reader.damaged)} packets of {film.source}: {reader.damaged[0]}")


class _Writer:
    """Decodes, enlarges and encodes; sound goes over as it is."""

    def __init__(self, film: Film, reader: _Reader, enlarger: Enlarger, path: Path) -> None:
        self._film, self._reader, self._enlarger, self._path = film, reader, enlarger, path
        self._sound: dict[int, Any] = {}

    def run(self, tell: Callable[[str], None], count: Callable[[Path, int, int], None]) -> None:
        """Write the video; `count` is called with every frame's target, height and width."""
        reader = self._reader
        with reader.av.open(str(self._path), "w") as out:
            stream = self._open_stream(out)
            self._open_sound(out, tell)
            for found in reader.read(self._sound):
                if isinstance(found, _Frame):
                    out.mux(stream.encode(self._enlarged(found, stream)))
                    count(self._film.target, stream.height, stream.width)
                else:
                    found.stream = self._sound[found.stream.index]
                    out.mux(found)
            out.mux(stream.encode())

    def _open_stream(self, out: Any) -> Any:
        picture, first = self._reader.picture, self._reader.first()
        name, options = _CODECS.get(self._film.target.suffix.lower(), _USUAL_CODEC)
        rate = picture.average_rate or picture.base_rate or Fraction(25)
        stream = out.add_stream(name, rate=rate, options=options)
        stream.height, stream.width = (
            side * self._enlarger.upscaler.scale // 2 * 2 for side in first.levels.shape[:2]
        )
        stream.pix_fmt = "yuv420p"  # which every player knows, and which halves both sides
        given, made = picture.codec_context, stream.codec_context
        made.time_base = picture.time_base
        made.color_primaries, made.color_trc = given.color_primaries, given.color_trc
        made.colorspace = first.colorspace
        return stream

    def _open_sound(self, out: Any, tell: Callable[[str], None]) -> None:
        for sound in self._reader.sound:
            try:
                self._sound[sound.index] = out.add_stream_from_template(sound)
            except (ValueError, self._reader.av.error.FFmpegError):
                suffix = self._film.target.suffix
                tell(f"{suffix} files hold no {sound.codec_context.name} sound, left out")

    def _enlarged(self, frame: _Frame, stream: Any) -> Any:
        photo = self._enlarger(Photo(frame.levels), str(self._film.source))
        levels = np.ascontiguousarray(photo.levels[: stream.height, : stream.width])
        made = self._reader.av.VideoFrame.from_ndarray(levels, format="rgb24")
        colours = 1 if frame.colorspace == _BT709 else _SWSCALE_BT601
        made = made.reformat(format=stream.pix_fmt, dst_colorspace=colours)
        made.pts, made.time_base = frame.pts, frame.time_base
        return made


@dataclass(frozen=True)
class _Frame:
    """A frame, upright: `(H, W, 3)`; when it is shown; and which YUV it was and is to be."""

    levels: Levels
    pts: int | None
    time_base: Any
    colorspace: int


class _Reader:
    """An open video; damaged packets are left out, up to a tenth of them."""

    def __init__(self, av: Any, container: Any, path: Path) -> None:
        self.av, self._container, self._path = av, container, path
        self.picture = container.streams.video[0]
        self.picture.thread_type = "AUTO"
        self.sound = list(container.streams.audio)
        self.damaged: list[str] = []

    def first(self) -> _Frame:
        """The first frame, from a file opened anew."""
        with _opened(self.av, self._path) as again:
            return next(again.read())

    def read(self, sound: Mapping[int, Any] | None = None) -> Iterator[Any]:
        """Frames, as `_Frame`, and packets of the streams in `sound`, in the order of the file.

        Raises:
            DataError: too much is damaged, or nothing is left.
        """
        packets = frames = 0
        streams = [self.picture, *(s for s in self.sound if s.index in (sound or {}))]
        for packet in self._container.demux(streams):
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


def _frame(frame: Any) -> _Frame:
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise, to be upright
    levels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
    known = frame.colorspace in (_UNKNOWN, *_BT601)
    return _Frame(levels, frame.pts, frame.time_base, frame.colorspace if known else _BT709)


@contextmanager
def _opened(av: Any, path: Path) -> Iterator[_Reader]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: there is no video in this file")
            yield _Reader(av, container, path)
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path}: unreadable video ({reason}); replace or remove it") from error


__all__ = ["Film", "enlarge_video"]

"""Videos through a network: a new video with the old sound, or a folder of frames."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from drc.core.errors import DataError, RunError, UsageError
from drc.core.files import atomic_write, write_errors
from drc.core.runtime import Progress
from drc.data.photo import Photo
from drc.data.photo_files import write_photo
from drc.data.video import VIDEO_SUFFIXES, import_av
from drc.upscaling.enlarge import Enlarger
from drc.upscaling.jobs import Naming, is_folder, refuse_existing
from drc.upscaling.run import Outcome, check_present
from drc.upscaling.video_reader import BT709, Frame, Reader, open_video

_CODECS = {".webm": ("libvpx-vp9", {"crf": "20", "b:v": "0"})}
_USUAL_CODEC = ("libx264", {"crf": "16"})
_SWSCALE_BT601 = 5


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
    warn: Callable[[str], None],
    progress: Progress,
) -> None:
    """Enlarge a video frame by frame; `outcome` is kept up to date.

    Args:
        film: the video, and what it becomes.
        enlarger: the network.
        outcome: told of every frame.
        quality: of frames in JPEG and WebP.
        tell: takes a line on what is left out.
        warn: takes a line on every frame that is there and is not what this network makes.
        progress: told after every frame.

    Raises:
        UsageError: PyAV is not installed.
        DataError: the video is unreadable.
        RunError: the output cannot be written.
        ModelError: the network fails.
    """
    av = import_av(film.source)
    outcome.unit, outcome.resumable = "frames", film.frames
    start = time.perf_counter()

    def count(path: Path | None, height: int, width: int) -> None:
        if path is not None:
            outcome.written.append(path)
            outcome.pixels += height * width
        outcome.seconds = time.perf_counter() - start
        done = outcome.done + len(outcome.failed)
        progress("upscale", done, outcome.total, {"MP/s": outcome.megapixels_per_second})

    with open_video(av, film.source) as reader:
        outcome.total = reader.picture.frames
        if film.frames:
            for number, frame in enumerate(reader.read(), 1):
                path = film.frame_path(number)
                if film.goes_on and path.exists():
                    _note_present(film, path, number, frame, enlarger, outcome, warn)
                    count(None, 0, 0)
                    continue
                photo = enlarger(Photo(frame.levels), f"frame {number}")
                write_photo(path, photo, quality)
                count(path, *photo.size)
        else:
            with atomic_write(film.target) as temporary, write_errors(film.target):
                _Writer(film, reader, enlarger, temporary).run(tell, count)
    outcome.total = outcome.done + len(outcome.failed)
    if reader.damaged:
        tell(f"skipped {len(reader.damaged)} packets of {film.source}: {reader.damaged[0]}")


def _note_present(
    film: Film,
    path: Path,
    number: int,
    frame: Frame,
    enlarger: Enlarger,
    outcome: Outcome,
    warn: Callable[[str], None],
) -> None:
    """Count a frame that is there already, as failed if this network did not make it."""
    try:
        name, scale = f"frame {number} of {film.source}", enlarger.upscaler.scale
        check_present(path, name, frame.levels.shape[:2], scale)
        outcome.present += 1
    except DataError as error:
        outcome.failed[str(path)] = str(error)
        warn(f"skipped {error}")


class _Writer:
    """Decodes, enlarges and encodes; sound goes over as it is."""

    def __init__(self, film: Film, reader: Reader, enlarger: Enlarger, path: Path) -> None:
        self._film, self._reader, self._enlarger, self._path = film, reader, enlarger, path
        self._sound: dict[int, Any] = {}
        self._shape: tuple[int, ...] = ()

    def run(self, tell: Callable[[str], None], count: Callable[[Path, int, int], None]) -> None:
        """Write the video; `count` is called with every frame's target, height and width.

        Raises:
            RunError: no encoder, or one that does not take the size, which is known before a frame
                is enlarged; or it fails.
            DataError: frames of several sizes.
            OSError: the disk is full, say.
        """
        reader = self._reader
        try:
            with reader.av.open(str(self._path), "w") as out:
                stream = self._open_stream(out)
                self._open_sound(out, tell)
                self._start(out)
                for found in reader.read(self._sound):
                    if isinstance(found, Frame):
                        out.mux(stream.encode(self._enlarged(found, stream)))
                        count(self._film.target, stream.height, stream.width)
                    else:
                        found.stream = self._sound[found.stream.index]
                        out.mux(found)
                out.mux(stream.encode())
        except OSError:  # which `write_errors` explains
            raise
        except reader.av.error.FFmpegError as error:
            raise RunError(
                f"cannot write {self._film.target}: FFmpeg refuses a frame or sound "
                f"({_reason(error)}), as it does where their times go back; name a folder for the "
                "frames"
            ) from error

    def _open_stream(self, out: Any) -> Any:
        """The picture's stream, with an encoder that takes it."""
        picture, first = self._reader.picture, self._reader.first()
        name, options = _CODECS.get(self._film.target.suffix.lower(), _USUAL_CODEC)
        rate = picture.average_rate or picture.base_rate or Fraction(25)
        try:
            stream = out.add_stream(name, rate=rate, options=options)
        except ValueError as error:  # of an unknown codec, or one that the container does not hold
            raise self._refusal(f"this FFmpeg does not encode it by {name}") from error
        height, width = (
            side * self._enlarger.upscaler.scale // 2 * 2 for side in first.levels.shape[:2]
        )
        stream.height, stream.width = height, width
        self._shape = first.levels.shape
        stream.pix_fmt = "yuv420p"  # which every player knows, and which halves both sides
        given, made = picture.codec_context, stream.codec_context
        made.time_base = picture.time_base
        made.color_primaries, made.color_trc = given.color_primaries, given.color_trc
        made.colorspace = first.colorspace
        try:
            made.open()
        except self._reader.av.error.FFmpegError as error:
            reason = f"{name} takes no pictures of {width}x{height} ({_reason(error)})"
            raise self._refusal(reason) from error
        return stream

    def _open_sound(self, out: Any, tell: Callable[[str], None]) -> None:
        av = self._reader.av
        for sound in self._reader.sound:
            try:
                with av.open(io.BytesIO(), "w", format=out.format.name) as trial:
                    trial.add_stream_from_template(sound)
                    trial.start_encoding()
                self._sound[sound.index] = out.add_stream_from_template(sound)
            except (ValueError, av.error.FFmpegError):
                suffix = self._film.target.suffix
                tell(f"{suffix} files hold no {sound.codec_context.name} sound, left out")

    def _start(self, out: Any) -> None:
        try:
            out.start_encoding()
        except OSError:
            raise
        except self._reader.av.error.FFmpegError as error:
            raise self._refusal(f"FFmpeg refuses it ({_reason(error)})") from error

    def _refusal(self, reason: str) -> RunError:
        return RunError(
            f"cannot write {self._film.target}: {reason}; name a video of another kind, or a "
            "folder for the frames"
        )

    def _enlarged(self, frame: Frame, stream: Any) -> Any:
        if frame.levels.shape != self._shape:
            before, now = (
                f"{width}x{height}" for height, width, _ in (self._shape, frame.levels.shape)
            )
            raise DataError(
                f"{self._film.source}: its frames change from {before} to {now}, which a video "
                "cannot hold; name a folder for the frames"
            )
        photo = self._enlarger(Photo(frame.levels), str(self._film.source))
        levels = np.ascontiguousarray(photo.levels[: stream.height, : stream.width])
        made = self._reader.av.VideoFrame.from_ndarray(levels, format="rgb24")
        colours = 1 if frame.colorspace == BT709 else _SWSCALE_BT601
        made = made.reformat(format=stream.pix_fmt, dst_colorspace=colours)
        made.pts, made.time_base = frame.pts, frame.time_base
        return made


def _reason(error: Any) -> str:
    """What FFmpeg raised, and what it logged before."""
    said = error.strerror or type(error).__name__
    logged = error.log[2].strip() if error.log else ""
    return f"{said}: {logged}" if logged else str(said)


__all__ = ["Film", "enlarge_video"]

"""Videos through a network: a new video with the old sound, or a folder of frames."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from drc.core.errors import DataError, RunError
from drc.core.files import atomic_write, write_errors
from drc.data.photo import Photo
from drc.data.photo_files import write_photo
from drc.data.video import BT709, Frame, Video, open_video
from drc.upscaling.outputs import Film
from drc.upscaling.run import UpscaleRun

_CODECS = {".webm": ("libvpx-vp9", {"crf": "20", "b:v": "0"})}
_USUAL_CODEC = ("libx264", {"crf": "16"})
_SWSCALE_BT601 = 5


def enlarge_video(run: UpscaleRun, film: Film) -> None:
    """Enlarge a video frame by frame.

    Raises:
        UsageError: PyAV is not installed.
        DataError: the video is unreadable.
        RunError: the output cannot be written.
        ModelError: the network fails.
    """
    outcome = run.outcome
    outcome.unit, outcome.resumable = "frames", film.as_frames
    with open_video(film.source) as video:
        outcome.total = video.picture.frames
        if film.as_frames:
            _enlarge_frames(run, film, video)
        else:
            with atomic_write(film.target) as temporary, write_errors(film.target):
                _Writer(run, film, video).write(temporary)
    outcome.total = outcome.done + len(outcome.failed)
    if video.damaged:
        run.log(f"skipped {len(video.damaged)} packets of {film.source}: {video.damaged[0]}")


def _enlarge_frames(run: UpscaleRun, film: Film, video: Video) -> None:
    for number, frame in enumerate(video.read(), 1):
        target = film.frame_path(number)
        if run.resume and target.exists():
            try:
                run.keep(target, f"frame {number} of {film.source}", frame.levels.shape[:2])
            except DataError as error:
                run.fail(str(target), target, error)
        else:
            photo = run.enlarger(Photo(frame.levels), f"frame {number}")
            write_photo(target, photo, run.quality)
            run.count(target, photo.size)
        run.advance()


class _Writer:
    """Decodes, enlarges and encodes; sound goes over as it is."""

    def __init__(self, run: UpscaleRun, film: Film, video: Video) -> None:
        self._run, self._film, self._video = run, film, video
        self._ffmpeg_error = video.av.error.FFmpegError
        self._first = video.first()

    def write(self, path: Path) -> None:
        """Write the video.

        Raises:
            RunError: no encoder, or one that does not take the size, which is known before a frame
                is enlarged; or it fails.
            DataError: frames of several sizes.
            OSError: the disk is full, say.
        """
        try:
            with self._video.av.open(str(path), "w") as out:
                stream = self._open_stream(out)
                sound = self._open_sound(out)
                self._start(out)
                for found in self._video.read(sound):
                    if isinstance(found, Frame):
                        out.mux(stream.encode(self._enlarged(found, stream)))
                        self._run.count(self._film.target, (stream.height, stream.width))
                        self._run.advance()
                    else:
                        found.stream = sound[found.stream.index]
                        out.mux(found)
                out.mux(stream.encode())
        except OSError:  # which `write_errors` explains; some errors of FFmpeg are both
            raise
        except self._ffmpeg_error as error:
            raise RunError(
                f"cannot write {self._film.target}: FFmpeg refuses a frame or sound "
                f"({_reason(error)}), as it does where their times go back; name a folder for the "
                "frames"
            ) from error

    def _open_stream(self, out: Any) -> Any:
        """The picture's stream, with an encoder that takes it."""
        picture, first = self._video.picture, self._first
        name, options = _CODECS.get(self._film.target.suffix.lower(), _USUAL_CODEC)
        rate = picture.average_rate or picture.base_rate or Fraction(25)
        try:
            stream = out.add_stream(name, rate=rate, options=options)
        except ValueError as error:  # of an unknown codec, or one that the container does not hold
            raise self._refusal(f"this FFmpeg does not encode it by {name}") from error
        scale = self._run.enlarger.upscaler.scale
        stream.pix_fmt = "yuv420p"  # which every player knows, and which halves both sides
        stream.height, stream.width = (side * scale // 2 * 2 for side in first.levels.shape[:2])
        given, made = picture.codec_context, stream.codec_context
        made.time_base = picture.time_base
        made.color_primaries, made.color_trc = given.color_primaries, given.color_trc
        made.colorspace = first.colorspace
        try:
            made.open()
        except self._ffmpeg_error as error:
            size = f"{stream.width}x{stream.height}"
            reason = f"{name} takes no pictures of {size} ({_reason(error)})"
            raise self._refusal(reason) from error
        return stream

    def _open_sound(self, out: Any) -> dict[int, Any]:
        """Index of a stream of sound -> the new one, for those that the new file holds."""
        av, streams = self._video.av, {}
        for sound in self._video.sound:
            try:
                with av.open(io.BytesIO(), "w", format=out.format.name) as trial:
                    trial.add_stream_from_template(sound)
                    trial.start_encoding()
                streams[sound.index] = out.add_stream_from_template(sound)
            except (ValueError, self._ffmpeg_error):
                suffix, name = self._film.target.suffix, sound.codec_context.name
                self._run.log(f"{suffix} files hold no {name} sound, left out")
        return streams

    def _start(self, out: Any) -> None:
        try:
            out.start_encoding()
        except OSError:
            raise
        except self._ffmpeg_error as error:
            raise self._refusal(f"FFmpeg refuses it ({_reason(error)})") from error

    def _refusal(self, reason: str) -> RunError:
        return RunError(
            f"cannot write {self._film.target}: {reason}; name a video of another kind, or a "
            "folder for the frames"
        )

    def _enlarged(self, frame: Frame, stream: Any) -> Any:
        source = str(self._film.source)
        if frame.levels.shape != self._first.levels.shape:
            before, now = (f"{x.levels.shape[1]}x{x.levels.shape[0]}" for x in (self._first, frame))
            raise DataError(
                f"{source}: its frames change from {before} to {now}, which a video cannot hold; "
                "name a folder for the frames"
            )
        photo = self._run.enlarger(Photo(frame.levels), source)
        levels = np.ascontiguousarray(photo.levels[: stream.height, : stream.width])
        made = self._video.av.VideoFrame.from_ndarray(levels, format="rgb24")
        colours = 1 if frame.colorspace == BT709 else _SWSCALE_BT601
        made = made.reformat(format=stream.pix_fmt, dst_colorspace=colours)
        made.pts, made.time_base = frame.pts, frame.time_base
        return made


def _reason(error: Any) -> str:
    """What FFmpeg raised, and what it logged before."""
    said = error.strerror or type(error).__name__
    logged = error.log[2].strip() if error.log else ""
    return f"{said}: {logged}" if logged else str(said)

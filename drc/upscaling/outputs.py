"""Which images are to be enlarged, and which files they become."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drc.core.errors import DataError, UsageError, unknown_name
from drc.data.images import SUFFIXES
from drc.data.photo_files import FORMATS, OFFERED, format_of
from drc.data.video import VIDEO_SUFFIXES

_VIDEOS = ", ".join(sorted(VIDEO_SUFFIXES))


@dataclass(frozen=True)
class Output:
    """An image file, and the file that it becomes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Naming:
    """How outputs are called.

    Attributes:
        format: one of `OFFERED`; None for that of the input, or PNG where that is not written.
        suffix: put behind the name, before the ending.

    Raises:
        UsageError: no such format, or a suffix that is no part of a file name.
    """

    format: str | None = None
    suffix: str = ""

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in OFFERED:
            raise UsageError(unknown_name("image format", self.format, OFFERED))
        if Path(f"x{self.suffix}").name != f"x{self.suffix}":
            raise UsageError(f"--suffix {self.suffix!r} is no part of a file name")

    def of(self, source: Path) -> str:
        """The name of the file that `source` becomes."""
        ending = source.suffix if format_of(source) is not None else ".png"
        if self.format is not None and format_of(source) is not FORMATS[self.format]:
            ending = FORMATS[self.format].suffixes[0]
        return f"{source.stem}{self.suffix}{ending}"


@dataclass(frozen=True)
class Film:
    """A video, and what it becomes: a video, or a folder of frames, called by `naming`."""

    source: Path
    target: Path
    naming: Naming
    as_frames: bool

    def frame_path(self, number: int) -> Path:
        return self.target / self.naming.of(Path(f"frame_{number:06d}.png"))


def plan_outputs(
    source: Path, out: str, naming: Naming, resume: bool, overwrite: bool
) -> list[Output]:
    """List what is to be made, by name, without opening an image.

    Args:
        source: an image file, or a folder: its images and those in folders inside it.
        out: for a file, a file, or a folder if it is one or ends in a slash; for a folder, a
            folder, which gets the same folders inside.
        naming: of the outputs.
        resume: outputs that are there already are left as they are.
        overwrite: they are replaced.

    Raises:
        UsageError: outputs are there already, would replace inputs, or each other.
        DataError: there is no such file or folder, or no image in it.
    """
    _refuse_both(resume, overwrite)
    may_exist = resume or overwrite
    if source.is_dir():
        outputs = _of_folder(source, out, naming, may_exist)
    elif source.is_file():
        outputs = [Output(source, _of_file(source, out, naming))]
    else:
        raise DataError(f"{source}: no such file or folder")
    _refuse_clashes(outputs)
    for output in () if may_exist else outputs:
        _refuse_existing(output.target)
    return outputs


def plan_film(source: Path, out: str, naming: Naming, resume: bool, overwrite: bool) -> Film:
    """Decide by `out` what a video becomes. Arguments as for `plan_outputs`; `naming` is of frames.

    Raises:
        UsageError: it is neither a folder nor a video's name, or is there already.
    """
    _refuse_both(resume, overwrite)
    target = Path(out)
    if _is_folder(out) or not target.suffix:
        if not (resume or overwrite):
            _refuse_used_folder(target)
        return Film(source, target, naming, as_frames=True)
    if target.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f"{out}: a video becomes {_VIDEOS}, or a folder of frames")
    if resume or naming != Naming():
        raise UsageError(
            "--resume, --format and --suffix are for images; to be able to go on, name a folder "
            "for the frames"
        )
    _refuse_clashes([Output(source, target)])
    if not overwrite:
        _refuse_existing(target)
    return Film(source, target, naming, as_frames=False)


def _of_file(source: Path, out: str, naming: Naming) -> Path:
    target = Path(out)
    if _is_folder(out):
        if target.is_file():
            raise UsageError(f"{target} is a file; name another folder")
        return target / naming.of(source)
    if target.suffix.lower() in VIDEO_SUFFIXES:
        raise UsageError(f"{out}: {source} is no video by its name; videos are {_VIDEOS}")
    if naming.suffix:
        raise UsageError("--suffix is for outputs whose names follow from those of the inputs")
    if format_of(target) is None:
        endings = ", ".join(sorted(s for kind in FORMATS.values() for s in kind.suffixes))
        raise UsageError(
            f"{out}: images are written as {endings}; name such a file, or a folder, with a slash "
            "at the end"
        )
    if naming.format is not None and format_of(target) is not FORMATS[naming.format]:
        raise UsageError(f"--format {naming.format} is not that of {out}; leave one of them out")
    return target


def _is_folder(out: str) -> bool:
    """Whether an output is meant as a folder."""
    return out.endswith(("/", os.sep)) or Path(out).is_dir()


def _of_folder(source: Path, text: str, naming: Naming, may_exist: bool) -> list[Output]:
    out = Path(text)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; for a folder of images name a folder")
    if not _is_folder(text) and (format_of(out) or out.suffix.lower() in VIDEO_SUFFIXES):
        raise UsageError(f"{out} is the name of a file; for a folder of images name a folder")
    if out.resolve() == source.resolve():
        raise UsageError(f"{out} is the folder of the inputs; name another for the outputs")
    try:
        if not may_exist:
            _refuse_used_folder(out)
        images = sorted(_images(source, out.resolve()))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot list the folder ({error.strerror})") from error
    if not images:
        raise DataError(f"{source}: no images found ({', '.join(sorted(SUFFIXES))})")
    return [
        Output(path, out / path.relative_to(source).parent / naming.of(path)) for path in images
    ]


def _images(folder: Path, out: Path) -> Iterator[Path]:
    """The images of a folder and of those inside it, but for `out`; hidden ones are left out."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if not path.is_symlink() and path.resolve() != out:
                yield from _images(path, out)
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _refuse_both(resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise UsageError("--resume leaves existing outputs and --overwrite replaces them; pass one")


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise UsageError(f"{target} is there already; pass --overwrite to replace it")


def _refuse_used_folder(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"{out} is not empty; pass --resume to leave what is done and make the rest, "
            "--overwrite to make all of it again, or another folder"
        )


def _refuse_clashes(outputs: list[Output]) -> None:
    sources: dict[Path, list[Path]] = defaultdict(list)
    inputs = {output.source.resolve() for output in outputs}
    for source, target in ((output.source, output.target) for output in outputs):
        sources[target].append(source)
        if target.exists() and target.resolve() in inputs:
            whose = "its own input" if target.resolve() == source.resolve() else "an input"
            raise UsageError(f"{target} would replace {whose}; name another file or folder")
    for target, several in sources.items():
        if len(several) > 1:
            names = " and ".join(str(path) for path in several[:2])
            raise UsageError(
                f"{names} would both become {target}; leave --format out, or rename one"
            )

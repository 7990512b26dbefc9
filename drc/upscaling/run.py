"""Enlarge many images: one that cannot be used is named, and the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drc.core.errors import DataError, DrcError, ModelError
from drc.core.runtime import Progress
from drc.data.images import image_size, intact_size
from drc.data.photo_files import DEFAULT_QUALITY, losses, read_photo, write_photo
from drc.upscaling.enlarge import Enlarger
from drc.upscaling.outputs import Output


@dataclass
class Outcome:
    """What was done so far.

    Attributes:
        total: images asked for; 0 where nobody knows.
        unit: what is counted, images or frames.
        resumable: whether what is written stays after an interruption.
        written: the files made, or frames of a file that is not complete yet.
        present: how many were there already.
        failed: source, or frame that is there -> why it could not be used.
        pixels: in the files made.
        seconds: that they took, reading and writing included.
    """

    total: int
    unit: str = "images"
    resumable: bool = True
    written: list[Path] = field(default_factory=list)
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    pixels: int = 0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        return len(self.written) + self.present

    @property
    def outputs(self) -> list[Path]:
        """The files made, each once."""
        return list(dict.fromkeys(self.written))

    @property
    def megapixels_per_second(self) -> float:
        return self.pixels / 1e6 / self.seconds if self.seconds else 0.0


@dataclass
class UpscaleRun:
    """What the images or frames of one run share; `outcome` is kept up to date, for interrupts.

    Attributes:
        enlarger: the network.
        outcome: what is done.
        log: takes a line on what is lost of an image.
        warn: takes a line on every image that cannot be used.
        progress: called after every image.
        quality: of JPEG and WebP.
        resume: outputs of the right size that are there already are left as they are.
    """

    enlarger: Enlarger
    outcome: Outcome
    log: Callable[[str], None]
    warn: Callable[[str], None]
    progress: Progress
    quality: int = DEFAULT_QUALITY
    resume: bool = False

    def __post_init__(self) -> None:
        self._start = time.perf_counter()

    def keep(self, target: Path, name: str, size: tuple[int, int]) -> None:
        """Count an output that is there already.

        Args:
            target: the file.
            name: of what it was made of.
            size: of that, the two sides in any order.

        Raises:
            DataError: it is damaged, or has another size, which another network has made.
        """
        found, scale = intact_size(target), self.enlarger.upscaler.scale
        if sorted(found) != sorted(side * scale for side in size):
            raise DataError(
                f"{target} is there already, {found[1]}x{found[0]}, which is not x{scale} of "
                f"{name}; remove it, or pass --overwrite in place of --resume"
            )
        self.outcome.present += 1

    def count(self, target: Path, size: tuple[int, int]) -> None:
        """Count an output that was made, of a height and a width."""
        self.outcome.written.append(target)
        self.outcome.pixels += size[0] * size[1]

    def fail(self, name: str, target: Path, error: DrcError) -> None:
        """Count what could not be used, and warn of it."""
        self.outcome.failed[name] = str(error)
        is_named = name in str(error) or str(target) in str(error)
        self.warn(f"skipped {error}" if is_named else f"skipped {name}: {error}")

    def advance(self) -> None:
        """Report the progress after an image."""
        outcome = self.outcome
        outcome.seconds = time.perf_counter() - self._start
        tried = outcome.done + len(outcome.failed)
        self.progress("upscale", tried, outcome.total, {"MP/s": outcome.megapixels_per_second})


def enlarge_images(run: UpscaleRun, outputs: Sequence[Output]) -> None:
    """Enlarge image after image.

    Raises:
        RunError: an output cannot be written; the disk is full, say.
    """
    for output in outputs:
        name = str(output.source)
        try:
            if run.resume and output.target.exists():
                run.keep(output.target, name, image_size(output.source))  # turned by EXIF, or not
            else:
                _enlarge(run, output)
        except (DataError, ModelError) as error:
            run.fail(name, output.target, error)
        run.advance()


def _enlarge(run: UpscaleRun, output: Output) -> None:
    source, target = output.source, output.target
    photo = read_photo(source)
    if photo.file_bits is not None:
        run.log(f"{source}: read in 8 bits of the {photo.file_bits} that it holds")
    if photo.frames > 1:
        run.log(f"{source}: the first of {photo.frames} frames or pages is taken")
    lost = losses(photo, target)
    if lost:
        run.log(f"{target}: this format holds no {' and no '.join(lost)}, left out")
    enlarged = run.enlarger(photo, str(source))
    write_photo(target, enlarged, run.quality)
    run.count(target, enlarged.size)

"""Enlarge many images: one that cannot be used is named, and the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drc.core.errors import DataError, ModelError
from drc.core.runtime import Progress
from drc.data.images import image_size, intact_size
from drc.data.photo_files import DEFAULT_QUALITY, losses, read_photo, write_photo
from drc.upscaling.enlarge import Enlarger
from drc.upscaling.jobs import Job


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


def enlarge_images(
    jobs: Sequence[Job],
    enlarger: Enlarger,
    outcome: Outcome,
    *,
    quality: int = DEFAULT_QUALITY,
    goes_on: bool = False,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
    progress: Progress,
) -> None:
    """Enlarge image after image; `outcome` is kept up to date, for whoever interrupts.

    Args:
        jobs: the images.
        enlarger: the network.
        outcome: told of every image.
        quality: of JPEG and WebP.
        goes_on: outputs of the right size that are there already are left as they are.
        tell: takes a line on images of which something is lost.
        warn: takes a line on every image that cannot be used.
        progress: told after every image.

    Raises:
        RunError: an output cannot be written; the disk is full, say.
    """
    start = time.perf_counter()
    for number, job in enumerate(jobs, 1):
        try:
            if goes_on and job.target.exists():
                size = image_size(job.source)  # turned by EXIF, or not
                check_present(job.target, str(job.source), size, enlarger.upscaler.scale)
                outcome.present += 1
            else:
                outcome.pixels += _enlarge(job, enlarger, quality, tell)
                outcome.written.append(job.target)
        except (DataError, ModelError) as error:
            outcome.failed[str(job.source)] = str(error)
            named = str(job.source) in str(error) or str(job.target) in str(error)
            warn(f"skipped {error}" if named else f"skipped {job.source}: {error}")
        outcome.seconds = time.perf_counter() - start
        progress("upscale", number, len(jobs), {"MP/s": outcome.megapixels_per_second})


def _enlarge(job: Job, enlarger: Enlarger, quality: int, tell: Callable[[str], None]) -> int:
    """Enlarge one image, and return how many pixels it has become."""
    photo = read_photo(job.source)
    if photo.file_bits is not None:
        tell(f"{job.source}: read in 8 bits of the {photo.file_bits} that it holds")
    if photo.frames > 1:
        tell(f"{job.source}: the first of {photo.frames} frames or pages is taken")
    lost = losses(photo, job.target)
    if lost:
        tell(f"{job.target}: this format holds no {' and no '.join(lost)}, left out")
    enlarged = enlarger(photo, str(job.source))
    write_photo(job.target, enlarged, quality)
    height, width = enlarged.size
    return height * width


def check_present(target: Path, name: str, size: tuple[int, int], scale: int) -> None:
    """Look at an output that is there already.

    Args:
        target: the file.
        name: of what it was made of.
        size: of that, the two sides in any order.
        scale: of the network.

    Raises:
        DataError: it is damaged, or has another size, which another network has made.
    """
    found = intact_size(target)
    if sorted(found) != sorted(side * scale for side in size):
        raise DataError(
            f"{target} is there already, {found[1]}x{found[0]}, which is not x{scale} of {name}; "
            "remove it, or pass --overwrite in place of --resume"
        )


__all__ = ["Outcome", "check_present", "enlarge_images"]

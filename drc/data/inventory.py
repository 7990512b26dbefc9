"""Which images a run was started with, so that one that goes on notices when they change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drc.core.errors import DataError, RunError
from drc.core.files import write_text
from drc.data.folders import ImagePair

_SHOWN = 3


Source = tuple[str, list[Path]]
"""Name and files of an image, or of a video."""


def named(pair: ImagePair) -> Source:
    """The source that a pair is."""
    return pair.name, [pair.hr] if pair.lr is None else [pair.hr, pair.lr]


def write_inventory(path: Path, sources: Sequence[Source]) -> None:
    """List the images and their sizes in bytes, a line each. Raises DataError and RunError."""
    write_text(path, "".join(f"{line}\n" for line in lines_of(sources)))


def check_inventory(path: Path, sources: Sequence[Source]) -> None:
    """Raise RunError unless the images are those that `write_inventory` listed in `path`."""
    try:
        then = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise RunError(f"cannot read {path}: {reason}; start the run again") from error
    now = lines_of(sources)
    if then == now:
        return
    gone, new = sorted(set(then) - set(now)), sorted(set(now) - set(then))
    changes = [f"{len(lines)} {what} ({_names(lines)})" for what, lines in (
        ("missing or changed", gone), ("new or changed", new)) if lines]  # fmt: skip
    raise RunError(
        f"the training images are not those that the run was started with: of {len(then)}, "
        f"{', '.join(changes) or 'the order changed'}; put them back as they were, or start a new "
        "run"
    )


def lines_of(sources: Sequence[Source]) -> list[str]:
    """A line per source: its name, and the sizes of its files in bytes. Raises DataError."""
    lines = []
    for name, files in sources:
        try:
            sizes = [file.stat().st_size for file in files]
        except OSError as error:
            raise DataError(f"{files[0]}: {error.strerror}; replace or remove it") from error
        lines.append("\t".join((name, *map(str, sizes))))
    return lines


def _names(lines: Sequence[str]) -> str:
    names = [line.partition("\t")[0] for line in lines[:_SHOWN]]
    return ", ".join(names) + (", ..." if len(lines) > _SHOWN else "")

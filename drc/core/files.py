"""Writes that either happen whole or leave the old file as it was."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from drc.core.errors import RunError

_ADVICE = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "choose a place that can be written",
    errno.EPERM: "choose a place that can be written",
    errno.ENOTDIR: "part of that path is a file; choose another place",
    errno.EISDIR: "that path is a folder; choose another name",
}

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}(\.\w+)?")
"""Names of the temporary files, of which a process that is killed may leave one."""


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary file to fill, and move it to `path` once the block ends without an error.

    The temporary file lies in the same folder and has the same suffix; missing parent folders are
    made. After an error or Ctrl-C it is removed and an older file at `path` is untouched. What the
    block raises comes through as it is: of an OSError only the block knows which file it is about.
    So writers that can hand over their bytes use `write_bytes`, and others `write_errors`.

    Args:
        path: the file to write; a symbolic link is followed.

    Raises:
        RunError: the temporary file cannot be made, flushed or moved (disk full, read-only, a
            folder of that name, ...).
    """
    final = Path(os.path.realpath(path))
    temporary = final.parent / f".{final.stem[:100]}.{secrets.token_hex(6)}{final.suffix}"
    with write_errors(path):
        final.parent.mkdir(parents=True, exist_ok=True)
        # Made here, exclusively, so that the file has the user's permissions and never another's.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with write_errors(path):
            _flush_to_disk(temporary)
            temporary.replace(final)
    finally:
        # Moved away after a success; on a disk that became read-only it is not worth a word.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path | str) -> Iterator[None]:
    """An OSError within the block becomes a RunError: `path` cannot be written, and what helps."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        advice = _ADVICE.get(error.errno or 0, "choose another place")
        raise RunError(
            f"cannot write {path}: {reason[:1].lower()}{reason[1:]}; {advice}"
        ) from error


def write_bytes(path: Path | str, content: bytes | memoryview) -> None:
    """Write bytes atomically. Raises RunError where the system refuses any part of it."""
    with atomic_write(path) as temporary, write_errors(path):
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically. Raises RunError as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, content: Any) -> None:
    """Write indented JSON atomically. Raises RunError as `write_bytes` does.

    NaN and infinity are no JSON and raise ValueError.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_yaml(path: Path | str, content: Any) -> None:
    """Write YAML atomically, keys in the order given. Raises RunError as `write_bytes` does."""
    write_text(path, dump_yaml(content))


def dump_yaml(content: Any) -> str:
    """Plain types as YAML text, innermost lists and mappings on one line."""
    return yaml.safe_dump(
        content, sort_keys=False, default_flow_style=None, allow_unicode=False, width=100
    )


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

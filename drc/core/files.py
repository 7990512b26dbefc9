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
    made. After an error or Ctrl-C it is removed and an older file at `path` is untouched. Writers
    that hide the system's error (`torch.save`, `safetensors.save_file`) should hand their bytes
    to `write_bytes` instead.

    Args:
        path: the file to write; a symbolic link is followed.

    Raises:
        RunError: the system refused (disk full, read-only, a folder of that name, ...).
    """
    final = Path(os.path.realpath(path))
    temporary = final.parent / f".{final.stem[:100]}.{secrets.token_hex(6)}{final.suffix}"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        # Made here, exclusively, so that the file has the user's permissions and never another's.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(final)
    except OSError as error:
        raise RunError(_explain(path, error)) from error
    finally:
        # Moved away after a success, never made on a read-only disk: neither is worth a word.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes | memoryview) -> None:
    """Write bytes atomically. Raises RunError as `atomic_write` does."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically. Raises RunError as `atomic_write` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, content: Any) -> None:
    """Write indented JSON atomically. Raises RunError as `atomic_write` does.

    NaN and infinity are no JSON and raise ValueError.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_yaml(path: Path | str, content: Any) -> None:
    """Write YAML atomically, keys in the order given. Raises RunError as `atomic_write` does."""
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


def _explain(path: Path | str, error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "choose another place")
    return f"cannot write {path}: {reason[:1].lower()}{reason[1:]}; {advice}"

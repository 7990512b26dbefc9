"""Fetch a published weights file into a cache folder, whole or not at all.

A file whose checksum nobody published is held to that of its first download, which is kept beside
it as `sha256sum` writes it.
"""

from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from drc.core.errors import RunError, WeightsError
from drc.core.files import atomic_write, write_text
from drc.core.runtime import Progress

_CHUNK = 1 << 20
_RETRIES = 2
_TIMEOUT_S = 20.0


class DownloadError(WeightsError):
    """The file could not be fetched; the message is the bare reason."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    check: Callable[[Path], object] | None = None,
    progress: Progress | None = None,
    timeout: float = _TIMEOUT_S,
) -> None:
    """Download `url` to `target`; after any failure `target` is as it was.

    Args:
        url: http or https address; the usual proxy variables are honoured.
        target: the file to write; its folder is made.
        sha256: hexadecimal digest that the content must have; None for that of the first download.
        check: called with the complete temporary file; what it raises stops the download.
        progress: called with the bytes done and the total (0 when the server does not say).
        timeout: seconds that the server may stay silent, at each of three attempts.

    Raises:
        DownloadError: no connection, a status other than success, a timeout, a body cut short,
            another checksum, or a cache folder that cannot be written.
    """
    known = sha256 or _first_checksum(target)
    try:
        with atomic_write(target) as temporary:
            mode = temporary.stat().st_mode
            temporary.unlink()
            _receive(url, temporary, known, _Bar(progress, f"download {target.name}"), timeout)
            temporary.chmod(mode)  # pooch makes files that only their owner can read
            if check is not None:
                check(temporary)
            if known is None:
                _keep_checksum(target, pooch.file_hash(str(temporary)))
    except RunError as error:
        raise DownloadError(f"{error} with TORCH_HOME") from error


def require_checksum(path: Path, sha256: str | None) -> None:
    """Raise WeightsError unless a cached file is what it was when it came.

    Args:
        path: the file.
        sha256: the published digest; None for that of the first download, if it was kept.
    """
    known = sha256 or _first_checksum(path)
    if known is not None and pooch.file_hash(str(path)) != known.lower():
        raise WeightsError(f"{path} is damaged: its SHA-256 is not {known.lower()}")


class _Bar:
    """A progress bar as pooch uses it, in front of a `Progress`."""

    def __init__(self, progress: Progress | None, what: str) -> None:
        self.total = self._done = 0
        self._progress, self._what = progress, what

    def update(self, count: int) -> None:
        self._done += count
        if self.total:  # the last chunk is counted as a full one
            self._done = min(self._done, self.total)
        if self._progress is not None:
            self._progress(self._what, self._done, self.total, {})

    def reset(self) -> None:
        """What is done stays done."""

    def close(self) -> None:
        """Whoever shows the progress ends it."""


def _receive(url: str, target: Path, known: str | None, bar: _Bar, timeout: float) -> None:
    pooch.get_logger().setLevel(logging.WARNING)  # it would describe every download on stderr
    name = target.name
    cache = pooch.create(
        target.parent, "", registry={name: known}, urls={name: url}, retry_if_failed=_RETRIES
    )
    downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK, timeout=timeout)
    try:
        cache.fetch(name, downloader=downloader)
    except requests.RequestException as error:
        raise DownloadError(_in_words(error)) from error
    except ValueError as error:  # of the checksum
        wanted = str(known).lower()
        raise DownloadError(f"its SHA-256 is not {wanted}: damaged or replaced") from error


def _in_words(error: requests.RequestException) -> str:
    """The reason without numbers and brackets: `[Errno 111] Connection refused` and its like."""
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError):
            return "the server did not answer in time"
        if isinstance(cause, socket.gaierror):
            return "no network, or no such host"
        if isinstance(cause, http.client.IncompleteRead):
            return "the connection ended before the file was complete"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _checksum_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _first_checksum(target: Path) -> str | None:
    path = _checksum_file(target)
    words = path.read_text("utf-8").split() if path.is_file() else []
    return words[0] if words else None


def _keep_checksum(target: Path, checksum: str) -> None:
    path = _checksum_file(target)
    write_text(path, f"{checksum}  {target.name}\n")
    logging.getLogger(__name__).warning(
        "no checksum of %s is published; that of this download, %s, is kept in %s and compared "
        "from now on", target.name, checksum, path,
    )  # fmt: skip

"""Fetch a published weights file into a cache folder, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from drc.core.errors import RunError, WeightsError
from drc.core.files import atomic_write, write_errors
from drc.core.runtime import Progress

_CHUNK = 1 << 20
_TIMEOUT_S = 20.0
_T = TypeVar("_T")


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
        url: http, https or file address; the usual proxy variables are honoured.
        target: the file to write; its folder is made.
        sha256: hexadecimal digest that the content must have.
        check: called with the complete temporary file; what it raises stops the download.
        progress: told of the bytes done and the total (0 when the server does not say).
        timeout: seconds that the server may stay silent.

    Raises:
        DownloadError: no connection, a status other than success, a timeout, a body cut short,
            another checksum, or a cache folder that cannot be written.
    """
    try:
        with atomic_write(target) as temporary:
            with write_errors(target), temporary.open("wb") as output:
                found = _receive(url, output, target.name, progress, timeout)
            if sha256 is not None and found != sha256.lower():
                raise DownloadError(
                    f"its SHA-256 is {found}, not {sha256.lower()}: damaged or replaced on the way"
                )
            if check is not None:
                check(temporary)
    except RunError as error:
        raise DownloadError(f"{error} with TORCH_HOME") from error


def _receive(
    url: str, output: IO[bytes], name: str, progress: Progress | None, timeout: float
) -> str:
    """Copy the body to `output` and return its SHA-256."""
    digest = hashlib.sha256()
    done = 0
    request = urllib.request.Request(url, headers={"User-Agent": "drc"})
    with _guarded(lambda: urllib.request.urlopen(request, timeout=timeout)) as response:
        total = _guarded(lambda: int(response.headers.get("Content-Length") or 0))
        while chunk := _guarded(lambda: response.read(_CHUNK)):
            output.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(f"download {name}", done, total, {})
    if total and done != total:
        raise DownloadError(f"the connection ended after {done} of {total} bytes")
    return digest.hexdigest()


def _guarded(call: Callable[[], _T]) -> _T:
    """Run one network call and turn what goes wrong into a short reason."""
    try:
        return call()
    except urllib.error.HTTPError as error:
        raise DownloadError(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise DownloadError(_plain(error.reason)) from error
    except http.client.IncompleteRead as error:
        raise DownloadError("the connection ended before the file was complete") from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise DownloadError(_plain(error)) from error


def _plain(reason: object) -> str:
    """A reason without numbers and brackets: `[Errno 111] Connection refused` and its like."""
    if isinstance(reason, TimeoutError):
        return "the server did not answer in time"
    if isinstance(reason, socket.gaierror):
        return "no network, or no such host"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return str(reason) or type(reason).__name__

"""From exceptions to one line on stderr and an exit code. Imports nothing slow."""

from __future__ import annotations

import errno
import os
import sys

from drc.cli.display import is_main_process
from drc.core.errors import DrcError

FAILED, INTERRUPTED = 1, 130

# What the machine refuses, as opposed to a defect of ours such as a wrong file name.
_REFUSALS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


_OUT_OF_MEMORY = (
    "error: out of memory; use a smaller --batch or --patch, --auto-batch where the command takes "
    "it, or --device cpu"
)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a sentence that says what is kept and how to go on."""


def explain(error: BaseException) -> tuple[str, int] | None:
    """The line to print and the exit code, or None for a defect, which keeps its traceback."""
    if isinstance(error, DrcError):
        return f"error: {_one_line(error)}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _one_line(error) or "interrupted", INTERRUPTED
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        where = f" {error.filename}" if error.filename else ""
        return f"error: cannot read or write{where}: {error.strerror}", FAILED
    if isinstance(error, MemoryError) or _is_out_of_device_memory(error):
        return _OUT_OF_MEMORY, FAILED
    return None


def is_printed_elsewhere() -> bool:
    """Whether another process prints the error, which all have: the first.

    Before they have met, as for a wrong setting, the first of every machine prints it.
    """
    if is_main_process():
        return False
    processes = sys.modules.get("drc.core.distributed")
    if processes is None or not processes.is_joined():
        return os.environ.get("LOCAL_RANK", "0") != "0"
    return bool(processes.all_failed())


def _is_out_of_device_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())

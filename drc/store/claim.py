"""Making a folder for a run, which no other process makes at the same time."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from drc.core.errors import RunError

DEFAULT_ROOT = Path("runs")
STEPS_FILE = "steps.json"
"""What makes a folder a run."""


def claim(folder: Path) -> Path:
    """Make `folder`, which must be new or empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise RunError(f"cannot use {folder} as a run folder: {reason}; choose another") from error
    if taken and (folder / STEPS_FILE).is_file():
        raise RunError(f"{folder} already holds a run; pass --run to go on with it, or a new name")
    if taken:
        raise RunError(f"{folder} is not empty and not a run of drc's; choose a new folder")
    return folder


def claim_default(model: str, scale: int) -> Path:
    """Make the first free default folder; mkdir decides between two processes."""
    safe = re.sub(r"[^A-Za-z0-9_.-]", "-", model)
    stem = f"{safe}_x{scale}_{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while True:
        folder = DEFAULT_ROOT / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not DEFAULT_ROOT.is_dir():
                raise RunError(f"{DEFAULT_ROOT} is not a folder; pass --output DIR") from None
            number += 1
        except OSError as error:
            raise RunError(f"cannot make {folder}: {error.strerror}; pass --output DIR") from error

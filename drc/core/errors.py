"""The errors drc raises on purpose. Each message says what was wrong and what to do about it.

The command line prints the message as one line and exits with `exit_code`; anything that is
not a `DrcError` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DrcError(Exception):
    """Base of every error a user can cause or mend."""

    exit_code = 1


class UsageError(DrcError):
    """An argument, a setting or a configuration file is not acceptable."""

    exit_code = 2


class WeightsError(DrcError):
    """A checkpoint is missing, unreadable, refused or belongs to another network."""


class DataError(DrcError):
    """A folder, an image or a batch cannot be used."""


class ModelError(DrcError):
    """The network cannot be built, run or traced."""


class ExportError(DrcError):
    """No file of the network for another runtime can be made, or it gives something else.

    Attributes:
        reason: why, without the advice on options that the message ends in.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__("; ".join(filter(None, (reason, advice))))
        self.reason = reason


class RunError(DrcError):
    """A run folder or one of its files is missing, unreadable or from another version."""


class TrainingError(DrcError):
    """Training had to stop; the last good checkpoint is kept."""


class BudgetError(DrcError):
    """No plan reaches the requested budget; the message gives the reachable range."""

    exit_code = 3


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not registered: it offers the nearest ones, or all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return f"no {kind} is called {name!r}; {hint}"

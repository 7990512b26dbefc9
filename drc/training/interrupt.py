"""Ctrl-C and SIGTERM that wait for the end of a step, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

_PATIENCE = 1.0  # seconds; launchers and terminals may both pass on one Ctrl-C
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Inside `with`, the first Ctrl-C only sets `requested`; one after a second stops at once.

    SIGTERM does the same: torchrun sends it to the processes that are left when one has failed,
    and batch systems when a job's time is up.
    """

    def __init__(self) -> None:
        self.requested = False
        self._first = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        # Only the main thread gets signals, and a run that ignores Ctrl-C goes on doing so.
        main = threading.current_thread() is threading.main_thread()
        for number in _SIGNALS if main else ():
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and time.monotonic() - self._first > _PATIENCE:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._first = True, time.monotonic()


__all__ = ["Interruption"]

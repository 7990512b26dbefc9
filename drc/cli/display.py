"""Logs and progress on stderr: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 10.0
_SHOWN = ("loss", "patches/s", "validation")  # of a training; of other work, its first figure


def is_main_process() -> bool:
    """False in all but one of the processes that a launcher such as torchrun starts."""
    return os.environ.get("RANK", "0") == "0"


class Display:
    """What a running command shows. Call it as a `drc.core.runtime.Progress`, after `close` too.

    Args:
        quiet: show nothing.
        transient: leave no bars behind.
    """

    def __init__(self, quiet: bool = False, transient: bool = False) -> None:
        self.silent = quiet or not is_main_process()
        self._transient = transient
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()

    def __call__(self, what: str, done: int, total: int, metrics: dict[str, float]) -> None:
        if self.silent:
            return
        shown = {name: metrics[name] for name in _SHOWN if name in metrics} or dict(
            list(metrics.items())[:1]
        )
        text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        if self._bars is None and sys.stderr.isatty():
            self._bars = _make_bars(self._transient)
            self._bars.start()
        if self._bars is not None:
            if what not in self._tasks or self._bars.tasks[self._tasks[what]].completed > done:
                self._tasks[what] = self._bars.add_task(what, total=total, metrics=text)
            size = total or None  # 0 is a length that nobody knows
            self._bars.update(self._tasks[what], completed=done, total=size, metrics=text)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            amount = f": {done}{f'/{total}' if total else ''}" if done or total else ""
            self.log(f"{what}{amount}  {text}".rstrip())

    def log(self, text: str) -> None:
        """Print one line."""
        if self.silent:
            return
        self._last_line = time.monotonic()
        if self._bars is not None:
            self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()


def _make_bars(transient: bool) -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
        console=Console(stderr=True),
        transient=transient,
    )

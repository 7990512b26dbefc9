"""Batches of random crops for a run of so many steps, in one process or in a share of each."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from drc.core.errors import DataError, UsageError
from drc.data.draws import Item, RandomCrops, Skipped, Skips

OnSkip = Callable[[str], None]
"""Given one line on every image that is left out, once."""

_SKIPPED = "skipped"
_PREFETCHED = 4  # batches per worker: images that must be decoded come unevenly


class StepLoader(DataLoader[Any]):
    """Batches of a dataset for steps `start` to `steps - 1` of a run.

    Batch k holds items `k * batch` onwards, whatever `start` and `workers`.

    Attributes:
        sharded: whether the batches are already one process's share of those of the run.

    Args:
        dataset: `steps * batch` items.
        batch: items of a step, over all processes.
        steps: of the whole run.
        start: the first step.
        workers: processes that load; 0 to load in this one.
        share: the number of this process and how many there are. Each takes equally many rows of
            every batch, as `drc.training.feed.share_of` would of the whole one: where they do
            not go round, early rows fill up. Other rows are not read.
        on_skip: given one line on every unusable image.

    Raises:
        UsageError: a share that cannot be.
        DataError: while iterating, more than a tenth of the images cannot be used.
    """

    def __init__(
        self,
        dataset: RandomCrops,
        *,
        batch: int,
        steps: int,
        start: int,
        workers: int,
        share: tuple[int, int],
        on_skip: OnSkip | None,
    ) -> None:
        number, count = share
        if not 0 <= number < count:
            raise UsageError(f"process {number} of {count} cannot be; number them from 0")
        self.sharded = count > 1
        self._skips = Skips(dataset.skips.count)
        self._on_skip = on_skip
        rows = -(-batch // count)
        # Workers do not persist: after an error they would wait for the garbage collector, 5 s
        # each.
        super().__init__(
            _WithSkips(dataset),
            batch_size=rows,
            sampler=_Rows(range(start, steps), batch, number * rows, rows),
            num_workers=workers,
            prefetch_factor=_PREFETCHED if workers else None,
            collate_fn=_collate,
            worker_init_fn=_heed_no_signals,
        )
        self._note(list(dataset.skips.reasons.items()))

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            self._note(batch.pop(_SKIPPED))
            yield batch

    def _note(self, skipped: list[Skipped]) -> None:
        for number, reason in skipped:
            if self._skips.add(number, reason) and self._on_skip is not None:
                self._on_skip(f"skipped {reason}")


class _Rows(Sampler[int]):
    """The items of some rows of every batch."""

    def __init__(self, batches: range, batch: int, first: int, rows: int) -> None:
        self.batches = batches
        self.batch = batch
        self.rows = [row % batch for row in range(first, first + rows)]

    def __len__(self) -> int:
        return len(self.batches) * len(self.rows)

    def __iter__(self) -> Iterator[int]:
        for number in self.batches:
            for row in self.rows:
                yield number * self.batch + row


class _WithSkips(Dataset[Any]):
    """Items with the images they skipped; errors come as items, as torch rewrites what is raised
    in workers."""

    def __init__(self, dataset: RandomCrops) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item | DataError:
        try:
            item, skipped = self.dataset.draw(index)
        except DataError as error:
            return error
        return {**item, _SKIPPED: skipped}


def _heed_no_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM reach all processes of a terminal; the main one ends workers when it is
    done with the step."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _collate(items: list[Item | DataError]) -> Item | DataError:
    for item in items:
        if isinstance(item, DataError):
            return item
    skipped = [skip for item in items for skip in item.pop(_SKIPPED)]  # type: ignore[union-attr]
    return {**default_collate(items), _SKIPPED: skipped}

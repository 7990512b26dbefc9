"""The batches of a training run, in an order that a resumed run can take up again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from drc.core.errors import DataError
from drc.core.randomness import RandomState, RandomStream
from drc.data.batches import BatchReader

Batch = tuple[Tensor, ...]
"""LR and HR images, or LR images alone."""

Loader = Iterable[Any]
LoaderSource = Loader | Callable[[int], Loader]
"""An iterable of batches, or a function that gives one for the steps from a given step on."""


class Feed:
    """Endless `(lr, hr)` batches in a network's range, or `(lr,)` ones with an `LrReader`.

    A loader is read again from its start whenever it ends. To resume, the random state in which
    the current pass began is put back and the batches already used are read once more, so a
    shuffled loader with random augmentations continues as if it had never stopped. A function of
    the step is asked for the rest of the batches instead, and nothing is read twice.

    Args:
        source: batches that `drc.data.batches.unpack` accepts, or `step -> batches`.
        seed: of the random numbers that the loader draws.
        make_reader: from a loader, and `data_range`, its largest value if that is known, to
            what makes batches for the network.

    Attributes:
        sharded: the present loader gives only this process's rows of each batch.
    """

    def __init__(
        self, source: LoaderSource, seed: int, make_reader: Callable[..., BatchReader]
    ) -> None:
        self.sharded = False
        self._make_reader = make_reader
        self._source = source
        self._by_step = callable(source) and not isinstance(source, Iterable)
        self._stream = RandomStream(seed)
        self._start = self._stream.state
        self._generator_states: list[Tensor] = []
        self._taken = 0
        self._reader: BatchReader | None = None
        self._batches: Iterator[Batch] | None = None
        self._data_range: float | None = None

    def next(self, step: int) -> Batch:
        """The batch of `step`.

        Raises:
            DataError: an unusable batch, or a loader that has none (left).
        """
        with self._stream.active():
            if self._batches is None:
                self._batches = self._open(step)
            batch = next(self._batches, None)
            if batch is None:
                self._batches = self._open(step)
                batch = next(self._batches)
        self._taken += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where the run is in its data; tensors and plain types."""
        reader = self._reader
        return {
            "start": vars(self._start),
            "generators": self._generator_states,
            "taken": self._taken,
            "data_range": reader.data_range if reader else self._data_range,
        }

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """Continue at `step`, from where `state` was taken.

        Raises:
            DataError: the loader ends before the batches that were already used.
        """
        self._data_range = state["data_range"]
        self._stream.state = RandomState(**state["start"])
        taken = int(state["taken"])
        if self._by_step or not taken:
            return
        for generator, saved in zip(_generators(self._source), state["generators"], strict=False):
            generator.set_state(saved)
        with self._stream.active():
            self._batches = self._open(step)
            replayed = sum(1 for _ in itertools.islice(self._batches, taken))
        if replayed < taken:
            raise DataError(
                f"the loader gives {replayed} batches, but {taken} were used before the stop; "
                "resume with the same data"
            )
        self._taken = taken

    def _open(self, step: int) -> Iterator[Batch]:
        self._start = RandomState.capture()
        self._generator_states = [x.get_state() for x in _generators(self._source)]
        self._taken = 0
        if self._reader is not None:
            self._data_range = self._reader.data_range
        loader: Any = self._source(step) if self._by_step else self._source  # type: ignore[operator]
        self.sharded = getattr(loader, "sharded", False)
        self._reader = self._make_reader(loader, data_range=self._data_range)
        return iter(self._reader)


def share_of(batch: Tensor, accelerator: Accelerator) -> Tensor:
    """This process's rows of a batch, equally many in each; early rows fill up a short batch."""
    count = accelerator.num_processes
    if count == 1:
        return batch
    share = -(-len(batch) // count)
    first = accelerator.process_index * share
    return batch[torch.arange(first, first + share, device=batch.device) % len(batch)]


def _generators(loader: Any) -> list[torch.Generator]:
    """The generators that belong to a DataLoader or its sampler and not to the process."""
    owners = (loader, getattr(loader, "sampler", None))
    found = (getattr(owner, "generator", None) for owner in owners)
    return [generator for generator in found if isinstance(generator, torch.Generator)]

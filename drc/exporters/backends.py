"""Networks in the runtimes of exported files, to be timed beside torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from drc.evaluation.latency import Pass
from drc.exporters.base import FLOAT, Runtime, get_format, list_formats
from drc.exporters.memory import peak_mib
from drc.exporters.run import export


@dataclass
class FileBackend:
    """A runtime, to which networks go as files: each is exported and opened once.

    Attributes:
        name: of the format.
        folder: where the files go.
    """

    name: str
    folder: Path
    _opened: dict[int, tuple[Path, Runtime]] = field(default_factory=dict)

    def prepare(self, network: nn.Module, image: Tensor) -> Pass:
        """See `drc.evaluation.bench.Backend`."""
        if id(network) not in self._opened:
            self._opened[id(network)] = self._open(network)
        _, runtime = self._opened[id(network)]
        return partial(runtime, image.cpu().numpy())

    def peak_mib(self, network: nn.Module, image: Tensor, forward: Pass) -> float | None:
        """See `drc.evaluation.bench.Backend`; a process of its own runs the file once."""
        path, _ = self._opened[id(network)]
        return peak_mib(self.name, path, tuple(image.shape))

    def _open(self, network: nn.Module) -> tuple[Path, Runtime]:
        file = self.folder / f"{self.name}_{len(self._opened)}"
        path = export(network, file, to=self.name, runs=0, test=None, overwrite=True).path
        return path, get_format(self.name).load(path, torch.get_num_threads())


@contextmanager
def backends(names: Sequence[str]) -> Iterator[dict[str, FileBackend]]:
    """Within the block, these runtimes, by the name of the format.

    A network is exported once, as float32 for images of any size, checked as `drc.export` checks
    it, and opened with as many threads as torch has. Runtimes are on the CPU.

    Args:
        names: export formats; others are left out.

    Raises:
        UsageError: a runtime is not installed.
    """
    chosen = [name for name in names if name in list_formats()]
    for name in chosen:
        get_format(name).need(FLOAT)
    with tempfile.TemporaryDirectory(prefix="drc-bench-") as folder:
        yield {name: FileBackend(name, Path(folder)) for name in chosen}


def meanings(prepared: Mapping[str, FileBackend]) -> dict[str, str]:
    """Name -> what it is, as for the modes of torch."""
    return {name: f"float32, exported by `drc export --to {name}`" for name in prepared}


__all__ = ["FileBackend", "backends", "meanings"]

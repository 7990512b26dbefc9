"""Networks in the runtimes of exported files, to be timed beside torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from drc.evaluation.latency import Pass
from drc.exporters.base import FLOAT, Runtime, get_format, list_formats
from drc.exporters.run import export

Prepare = Callable[..., Pass]
"""From a network and `image=`, an LR image `(1, C, h, w)` in 0..1, to one pass of it."""


@contextmanager
def backends(names: Sequence[str]) -> Iterator[dict[str, Prepare]]:
    """Within the block, what prepares passes in these runtimes, by the name of the format.

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
        yield {name: partial(_prepare, name, Path(folder), {}) for name in chosen}


def _prepare(
    name: str, folder: Path, opened: dict[int, Runtime], network: nn.Module, image: Tensor
) -> Pass:
    runtime = opened.get(id(network))
    if runtime is None:
        file = folder / f"{name}_{len(opened)}"
        exported = export(network, file, to=name, runs=0, test=None, overwrite=True)
        runtime = get_format(name).load(exported.path, torch.get_num_threads())
        opened[id(network)] = runtime
    return partial(runtime, image.cpu().numpy())


def meanings(prepared: Mapping[str, Prepare]) -> dict[str, str]:
    """Name -> what it is, as for the modes of torch."""
    return {name: f"float32, exported by `drc export --to {name}`" for name in prepared}


__all__ = ["Prepare", "backends", "meanings"]

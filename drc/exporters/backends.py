"""Networks in the runtimes of exported files, to be timed beside torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from drc.core.errors import DrcError, ExportError, ModelError
from drc.evaluation.latency import Pass
from drc.evaluation.speed import Backend
from drc.exporters.formats.base import FLOAT, Format, Runtime, get_format, list_formats
from drc.exporters.measuring import peak_mib
from drc.exporters.result import Exported
from drc.exporters.run import export

_WORDS = {"fp32": "float32", "fp16": "float16", "int8": "8 bits"}


@dataclass
class FileBackend(Backend):
    """A runtime and a precision: makes passes of networks, by files written when they are needed.

    Attributes:
        kind: the format of the files.
        precision: of the files.
        folder: where they go.
    """

    kind: Format
    precision: str
    folder: Path
    _opened: dict[nn.Module, tuple[Exported, Runtime] | DrcError] = field(default_factory=dict)

    def prepare(self, network: nn.Module, image: Tensor) -> Pass:
        """One pass on an LR image `(1, C, h, w)` in 0..1, on the CPU. Raises DrcError."""
        return partial(self._open(network)[1], image.cpu().numpy())

    def peak_mib(self, network: nn.Module, image: Tensor, forward: Pass) -> float | None:
        """The memory of such a pass; see `drc.exporters.measuring.peak_mib`."""
        return peak_mib(self.kind.name, self.exported(network).path, tuple(image.shape))

    def exported(self, network: nn.Module) -> Exported:
        """What the network's file is. Raises DrcError if there is none."""
        return self._open(network)[0]

    @property
    def meaning(self) -> str:
        """What it is, as for the modes of torch."""
        option = "" if self.precision == FLOAT else f" --{self.precision}"
        return f"{_WORDS[self.precision]}, exported by `drc export --to {self.kind.name}{option}`"

    def _open(self, network: nn.Module) -> tuple[Exported, Runtime]:
        if network not in self._opened:
            self._opened[network] = self._make(network)
        found = self._opened[network]
        if isinstance(found, DrcError):
            raise found
        return found

    def _make(self, network: nn.Module) -> tuple[Exported, Runtime] | DrcError:
        file = self.folder / f"{self.kind.name}_{self.precision}_{len(self._opened)}"
        try:
            made = export(
                network, file, to=self.kind.name, precision=self.precision, runs=0, test=None
            )
        except ExportError as error:  # advice is on options that a benchmark does not have
            return ModelError(error.reason)
        except DrcError as error:
            return error
        return made, self.kind.load(made.path, torch.get_num_threads())


@contextmanager
def backends(names: Sequence[str]) -> Iterator[dict[str, FileBackend]]:
    """Within the block, what prepares passes in every runtime, by the mode's name.

    Modes are called after the format, and after the precision where that is not float32: `onnx`,
    `onnx_int8`. A network is exported once, for images of any size, checked as `drc.export` checks
    it, and opened with as many threads as torch has; int8 is calibrated on the bundled photos.
    Runtimes are on the CPU.

    Args:
        names: the modes that will be asked for; those of torch are left out.

    Raises:
        UsageError: a runtime is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="drc-bench-") as folder:
        known = {
            name if precision == FLOAT else f"{name}_{precision}": FileBackend(
                get_format(name), precision, Path(folder)
            )
            for name in list_formats()
            for precision in get_format(name).precisions
        }
        for name in names:
            if name in known:
                known[name].kind.need(known[name].precision)
        yield known

"""The registry of formats, and what each of them does."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import pkgutil
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drc.core.errors import ModelError, UsageError, unknown_name
from drc.exporters.wrapper import UnitNetwork

FLOAT, HALF, INT8 = "fp32", "fp16", "int8"
"""Precisions of a file."""

Image = npt.NDArray[np.float32]

Runtime = Callable[[Image], Image]
"""Runs a file on `(1, C, h, w)` in 0..1, and gives `(1, C, h * scale, w * scale)`."""


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
        network: in 0..1.
        example: an LR image, `(1, C, h, w)`, to trace by.
        second: one of another size; None where the file is for the size of `example` alone.
        multiple: what the sides of LR images must be multiples of.
        precision: one of the format's.
        opset: of ONNX; None for the exporter's default.
        facts: what the file should say of itself, where the format has room for it.
        calibration: LR images `(1, C, h, w)` for int8.
    """

    network: UnitNetwork
    example: Tensor
    second: Tensor | None
    multiple: int = 1
    precision: str = FLOAT
    opset: int | None = None
    facts: dict[str, str] = field(default_factory=dict)
    calibration: Sequence[Image] = ()

    @property
    def is_dynamic(self) -> bool:
        """Whether the file is for images of any size."""
        return self.second is not None


class ConversionError(ModelError):
    """An exporter gave up; the message is what it says, in one line."""


class Format(ABC):
    """A file format with the runtime that checks it. Subclasses fill in the attributes.

    Attributes:
        name: what users type, and the extra of setup.cfg; `register` sets it.
        suffixes: of the files written, the main one first.
        precisions: that it can hold.
        packages: modules that must be there to write and to run it.
        ways: the exporters to try, in this order, until the file's outputs are right.
    """

    name: str
    suffixes: tuple[str, ...]
    precisions: tuple[str, ...] = (FLOAT,)
    packages: tuple[str, ...] = ()
    ways: tuple[str, ...]

    @abstractmethod
    def write(self, request: Request, way: str, path: Path) -> None:
        """Write the file `path`, which ends in the first suffix, and those beside it.

        Raises:
            ConversionError: the exporter lacks something the network needs.
        """

    @abstractmethod
    def load(self, path: Path, threads: int) -> Runtime:
        """Open a file in the real runtime, on the CPU.

        Raises:
            ConversionError: the runtime refuses the file.
        """

    def need(self, precision: str) -> None:
        """Raise UsageError unless the format has the precision, and its packages are there."""
        if precision not in self.precisions:
            raise UsageError(
                f"{self.name} files are written in {' or '.join(self.precisions)}, not in "
                f"{precision}; leave --{precision} out, or choose --to onnx"
            )
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(
                f"{self.name} files need {' and '.join(missing)}, which "
                f"{'is' if len(missing) == 1 else 'are'} not installed; "
                f"run: pip install 'drc-sr[{self.name}]'"
            )

    def main_file(self, path: str | Path) -> Path:
        """The main file for a path with or without its suffix."""
        path, suffix = Path(path).expanduser(), self.suffixes[0]
        return path if path.name.endswith(suffix) else path.with_name(path.name + suffix)

    def files(self, path: Path) -> list[Path]:
        """All files of the one whose main file is `path`."""
        stem = path.name.removesuffix(self.suffixes[0])
        return [path.with_name(stem + suffix) for suffix in self.suffixes]

    def move(self, source: Path, target: Path) -> None:
        """Give all files of one another name."""
        for old, new in zip(self.files(source), self.files(target), strict=True):
            old.replace(new)

    def known_versions(self) -> dict[str, str]:
        """Distribution -> version, of torch and of the packages."""
        found = {}
        for name in ("torch", *self.packages):
            with contextlib.suppress(PackageNotFoundError):
                found[name] = version(name)
        return found


_FORMATS: dict[str, Format] = {}


def register(name: str) -> Callable[[type[Format]], type[Format]]:
    """Register the decorated format under the name users type."""

    def add(format_class: type[Format]) -> type[Format]:
        if name in _FORMATS:
            raise ValueError(f"a format named {name!r} is already registered")
        format_class.name = name
        _FORMATS[name] = format_class()
        return format_class

    return add


def list_formats() -> list[str]:
    """The names of all formats, sorted."""
    _import_formats()
    return sorted(_FORMATS)


def get_format(name: str) -> Format:
    """The format called `name`. Raises UsageError, which offers the nearest one."""
    _import_formats()
    if name not in _FORMATS:
        raise UsageError(unknown_name("export format", name, _FORMATS))
    return _FORMATS[name]


@cache
def _import_formats() -> None:
    package = importlib.import_module("drc.exporters.formats")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def first_line(error: object, limit: int = 300) -> str:
    """What an error says, without the pages and colours that exporters add, in one line."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
    return " ".join(text.partition("\n")[0].split())[:limit] or type(error).__name__


@contextlib.contextmanager
def converting(what: str = "", explain: Callable[[Exception], str] = first_line) -> Iterator[None]:
    """Within the block, which prints nothing, errors become `ConversionError`s.

    Args:
        what: begins their messages.
        explain: says what an error means, in one line.
    """
    try:
        with quiet(), torch.no_grad():
            yield
    except ConversionError:
        raise
    except Exception as error:  # exporters and runtimes raise what they like
        raise ConversionError(": ".join(filter(None, (what, explain(error))))) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block exporters print nothing: warnings, graphs and progress of theirs."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    # When torch's older exporter fails it writes its graph to stdout, past Python's own stream.
    graphs = patch.object(torch._C, "_jit_onnx_log", lambda *_: None, create=True)
    silence = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            graphs,
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

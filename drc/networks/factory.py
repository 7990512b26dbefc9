"""Networks of the user's code: `package.module:factory` or `path/to/file.py:factory`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from drc.core.errors import UsageError
from drc.networks.traits import plain_network

FORM = "package.module:factory or path/to/file.py:factory"


def is_factory(model: str) -> bool:
    """Whether a `--model` names code of the user's, not a registered network."""
    return ":" in model


def make(spec: str) -> nn.Module:
    """Import the module that `spec` names and call its factory, without arguments.

    The current folder, or that of the file, can be imported from, as under `python -m`. What the
    code prints goes to stderr.

    Raises:
        UsageError: the spec, the module, the factory or what it returns cannot be used.
        ModelError: the network is in a form that drc cannot work on.
    """
    source, _, name = spec.rpartition(":")
    if not source.strip() or not name.strip():
        raise UsageError(f"{spec!r} names no factory; write {FORM}")
    with redirect_stdout(sys.stderr):  # stdout is for results
        module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
        factory = _attribute(module, name, spec)
        _check_arguments(factory, spec)
        try:
            network = factory()
        except (Exception, SystemExit) as error:
            raise UsageError(f"calling {spec} failed: {_in_words(error)}") from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise UsageError(f"{spec} returned a {kind}; it must return a torch.nn.Module")
    return plain_network(network)


def _import_module(name: str) -> ModuleType:
    _importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"importing {name} failed: {_in_words(error)}") from error
        raise UsageError(
            f"there is no module {error.name} here; run drc in the folder that holds it, install "
            "it, or pass path/to/file.py:factory"
        ) from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"importing {name} failed: {_in_words(error)}") from error


def _import_file(path: Path) -> ModuleType:
    path = path.expanduser().absolute()
    if not path.is_file():
        raise UsageError(f"there is no file {path}; write {FORM}")
    known = [m for m in sys.modules.values() if getattr(m, "__file__", None) == str(path)]
    if known:
        return known[0]
    _importable(path.parent)
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_of_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported; write {FORM}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, (Exception, SystemExit)):
            raise UsageError(f"importing {path} failed: {_in_words(error)}") from error
        raise
    return module


def _importable(folder: Path) -> None:
    """Let imports find `folder`, now and later, since a network may import as it runs."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _attribute(module: ModuleType, name: str, spec: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):
        owner, found = found, getattr(found, part, None)
        if found is None:
            near = difflib.get_close_matches(part, _factories(owner), n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else _offer(owner)
            raise UsageError(f"{spec}: there is no {part} in {module.__name__}; {hint}")
    if isinstance(found, nn.Module) or not callable(found):
        raise UsageError(
            f"{spec} is a {type(found).__name__}; it must be a class, or a function that returns "
            "the network"
        )
    return found


def _factories(owner: Any) -> list[str]:
    """What of `owner` could make a network: its own classes and functions."""
    return [
        name
        for name, value in vars(owner).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and getattr(value, "__module__", None) == getattr(owner, "__name__", None)
    ]


def _offer(owner: Any) -> str:
    names = _factories(owner)[:4]
    return f"it has {', '.join(names)}" if names else "it has no classes and functions"


def _check_arguments(factory: Callable[..., Any], spec: str) -> None:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # built-ins need not tell; the call will
        return
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if needed:
        raise UsageError(
            f"{spec} needs {', '.join(needed)}, and drc calls it without arguments; write a "
            "function that returns the network and name that"
        )


def _in_words(error: BaseException) -> str:
    """Type, first line and line number of an error in the user's code."""
    text = (str(error).strip() or "no message").splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    line = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        line = ""  # its own text says where
    return f"{type(error).__name__}: {text}{line}"

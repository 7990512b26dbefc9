"""Read a checkpoint file without running code, and say how two state dicts differ."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from torch import Tensor, nn

from drc.core.errors import WeightsError

Shapes = dict[str, tuple[int, ...]]

_WRAPPERS = (
    "params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net"
)  # fmt: skip
_DEPTH = 8  # a file may hold a dict that holds itself
_SHOWN = 2  # differing names listed of each kind
_RESAVE = (
    "if you trust it, save its tensors alone elsewhere: torch.save(model.state_dict(), NEW_FILE)"
)


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Read the state dict in a checkpoint, out of the usual wrappers and prefixes.

    Args:
        path: a `torch.save` file (.pth, .pt, .ckpt) or .safetensors. The state dict may lie under
            `params_ema`, `params`, `state_dict` or `model`, nested, with `module.` or
            `_orig_mod.` before its names.

    Returns:
        Names and CPU tensors, of the types in the file.

    Raises:
        WeightsError: the file is missing, corrupt, needs code to be run, or holds no state dict.
    """
    return state_dict_of(read_file(Path(path)), path)


def shapes(source: nn.Module | Mapping[str, Tensor]) -> Shapes:
    """Names and shapes of a network's state, or of a state dict."""
    state = source.state_dict() if isinstance(source, nn.Module) else source
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def differences(expected: Shapes, found: Shapes) -> str:
    """The first names and shapes in which two state dicts differ, in words; empty when equal."""
    reshaped = [
        f"{name} is {_size(found[name])}, needs {_size(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    parts = [
        _listing("missing", [name for name in expected if name not in found]),
        _listing("unexpected", [name for name in found if name not in expected]),
        _listing("other shapes:", reshaped),
    ]
    return "; ".join(part for part in parts if part)


def _listing(what: str, entries: list[str]) -> str:
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return f"{what} {', '.join(entries[:_SHOWN])}{more}" if entries else ""


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def read_file(path: Path) -> Any:
    """Everything in a checkpoint file; only tensors and plain types can come out."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if path.suffix == ".safetensors" or head[8:] == b"{":
            # Not load_file: torch there asks a storage for its size in Python, and turns a Ctrl-C
            # that comes meanwhile into a ValueError.
            return from_bytes(path.read_bytes())
        with warnings.catch_warnings():
            # Of odd pickle protocols and TorchScript; the error that follows says it better.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"there is no weights file {path}; pass an existing one") from None
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {str(error.strerror or error).lower()}") from error
    except SafetensorError as error:
        raise WeightsError(f"{path} is corrupt or cut short ({first_line(error)})") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(_refused(path, str(error))) from error
    # A damaged pickle can raise nearly anything; whatever it was, the file is unusable.
    except Exception as error:
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{path} is a TorchScript program; drc reads state dicts: "
                "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
            ) from error
        raise WeightsError(
            f"{path} is corrupt, cut short or no checkpoint ({first_line(error)})"
        ) from error


def _refused(path: Path, message: str) -> str:
    needed = re.search(r"GLOBAL (\S+) (?:was not|whose module)", message)
    if needed is None:
        return f"{path} is corrupt, or a pickle of more than tensors; {_RESAVE}"
    return f"{path} is refused: loading it would run code ({needed[1]}); {_RESAVE}"


def state_dict_of(content: Any, path: Path | str) -> dict[str, Tensor]:
    """The state dict in what `read_file` gave, out of its wrappers and prefixes.

    Raises:
        WeightsError: there is none; `path` is named.
    """
    for _ in range(_DEPTH):
        if isinstance(content, Mapping):
            inner = (content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping))
            content = next(inner, content)
    if isinstance(content, (list, tuple)):
        raise WeightsError(f"{path} holds a list, the form of a dual model; this needs a network")
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {
            key: value.detach()
            for key, value in content.items()
            if isinstance(key, str) and isinstance(value, Tensor)
        }
    if not tensors:
        keys = ", ".join(map(str, list(content)[:4])) if isinstance(content, Mapping) else ""
        raise WeightsError(
            f"{path} holds no state dict; " + (f"its keys are {keys}" if keys else "it is empty")
        )
    return _without_prefixes(tensors)


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # torch.compile marks any compiled part, so its prefix may stand inside a name.
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    while all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def first_line(error: BaseException) -> str:
    """What an error says first, in 120 characters at most."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) <= 120 else text[:117] + "..."

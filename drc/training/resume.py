"""The checkpoint of a training run: what it holds, and whether it belongs to this run."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drc.core.errors import RunError
from drc.core.files import write_bytes
from drc.networks.blind import KernelEstimator
from drc.settings import RecoverySettings, identity
from drc.store.plan import fingerprint

SCHEMA_VERSION = 1
_FORMAT = "drc-training"

# Who teaches is identified by a checksum, wherever the weights come from.
_BY_CHECKSUM = {"teacher"}

# Identity entries that are checksums, and what to say when they differ.
_CHECKSUMS = {
    "model": "another starting network",
    "teacher": "another teacher",
    "dual": "another dual model",
}


def identify(
    settings: RecoverySettings,
    seed: int,
    scale: int,
    model: nn.Module,
    teacher: nn.Module | None,
    dual: nn.Module | None,
) -> dict[str, Any]:
    """What two runs must share for one to continue the other; plain values."""
    unused = set() if isinstance(model, KernelEstimator) else {"kernel_weight"}
    found = {k: v for k, v in identity(settings).items() if k not in _BY_CHECKSUM | unused}
    found.update(seed=seed, scale=scale)
    networks = {"model": model, "teacher": teacher, "dual": dual}
    for name, network in networks.items():
        found[name] = None if network is None else fingerprint(network)
    return found


def write_checkpoint(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write `state` atomically, together with what the run is.

    Args:
        path: the file.
        identity: plain values that a run must share to continue from here.
        state: tensors and plain types.

    Raises:
        RunError: the system refuses.
    """
    buffer = io.BytesIO()
    head = {"format": _FORMAT, "schema_version": SCHEMA_VERSION}
    torch.save({**head, "identity": identity, "state": state}, buffer)
    write_bytes(path, buffer.getbuffer())


def read_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the state that `write_checkpoint` stored, on the CPU.

    Raises:
        RunError: unreadable, corrupt, of another version of drc, or of a run with another identity.
    """
    content = _load(path)
    if content["schema_version"] != SCHEMA_VERSION:
        raise RunError(f"{path} was written by another version of drc; delete it and start over")
    difference = _difference(content["identity"], identity)
    if difference:
        raise RunError(
            f"{path} is of another run: {difference}; resume with what it was started with, "
            "or delete it and start over"
        )
    return content["state"]


def _load(path: Path) -> dict[str, Any]:
    useless = f"{path} is corrupt or no training checkpoint of drc; delete it and start over"
    try:
        stored = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        content = torch.load(stored, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise RunError(useless) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise RunError(useless)
    return content


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two identities, in words; empty when nothing does."""
    found = []
    for key in sorted({*then, *now}):
        old, new = then.get(key), now.get(key)
        if old == new:
            continue
        if key in _CHECKSUMS:
            absent = f"no {key} then" if old is None else f"no {key} now"
            found.append(absent if old is None or new is None else _CHECKSUMS[key])
        else:
            found.append(f"{key} {old} then, {new} now")
    return "; ".join(found)

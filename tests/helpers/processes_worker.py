"""One of two processes of a job, for tests/core/test_processes.py.

    python tests/helpers/processes_worker.py {messages,lost,python,whole} FOLDER

Writes FOLDER/<rank>.json, and for the last two FOLDER/<rank>.safetensors.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import drc
from drc.core.distributed import add_up, all_failed, is_first, on_first, shard, size, together
from drc.core.errors import BudgetError, DataError, RunError
from drc.networks.registry import build
from drc.settings import RecoverySettings

RANK = int(os.environ.get("RANK", "0"))


def messages() -> dict[str, Any]:
    """Everything that processes share, and every way to fail."""
    found: dict[str, Any] = {}
    with together("cpu"):
        found["first"] = is_first()
        found["shard"] = list(shard("abcde"))
        found["sum"] = add_up(torch.tensor([1.0, RANK])).tolist()
        found["of the first"] = on_first(_alone)
        try:
            on_first(lambda: _raise(DataError("the first cannot")))
        except DataError as error:
            found["first fails"] = str(error)
    try:
        with together("cpu"):
            _raise(BudgetError("out of reach"))
    except BudgetError as error:
        found["all fail"] = [str(error), all_failed()]
    try:
        with together("cpu"):
            if RANK:
                _raise(DataError("the other cannot"))
    except (DataError, RunError) as error:
        found["one fails"] = [str(error), all_failed()]
    return found


def lost() -> dict[str, Any]:
    """The other is killed while the first waits for its share of a sum."""
    with together("cpu"):
        if RANK:
            os.kill(os.getpid(), signal.SIGKILL)
        add_up(torch.ones(1))
    return {}


def _alone() -> tuple:
    """What is shared otherwise is not while the others wait."""
    torch.rand(1)  # which must not put the first out of step with the others
    return RANK, size(), list(shard("ab")), on_first(lambda: 7)


def _raise(error: Exception) -> None:
    raise error


def python(folder: Path) -> dict[str, Any]:
    """`drc.search` and `drc.prune` as a script of the user's calls them."""
    torch.manual_seed(0)
    model = build("drn_tiny")
    loader = [(torch.rand(2, 3, 12, 12), torch.rand(2, 3, 48, 48)) for _ in range(2)]
    if RANK:
        loader = []
    few = drc.SearchSettings(patches=3, dual_steps=2)
    uniform = few.model_copy(update={"strategy": "uniform"})
    plan = drc.search(model, loader, settings=uniform, device="cpu")
    small = drc.prune(model, plan, loader, calibration=few, device="cpu")
    save_file(small.state_dict(), folder / f"{RANK}.safetensors")
    found = {"plan": plan.model_dump(mode="json")}
    try:
        drc.search(model, loader, 0.99, settings=few, device="cpu")
    except BudgetError as error:
        found["reach"] = str(error)
    return found


def whole(folder: Path) -> dict[str, Any]:
    """`drc.compress`."""
    torch.manual_seed(0)
    loader = [(torch.rand(2, 3, 12, 12), torch.rand(2, 3, 48, 48)) for _ in range(2)]
    result = drc.compress(
        build("drn_tiny"), loader, 0.5,
        search=drc.SearchSettings(patches=3, dual_steps=2, lr_size=(16, 16)),
        recovery=RecoverySettings(steps=3, batch=2), test=None, device="cpu",
    )  # fmt: skip
    save_file(result.model.state_dict(), folder / f"{RANK}.safetensors")
    return {
        "report": json.loads(result.report.to_json()),
        "plan": result.plan.model_dump(mode="json"),
    }


def main() -> None:
    torch.set_num_threads(1)
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what in ("messages", "lost"):
        found = {"messages": messages, "lost": lost}[what]()
    else:
        found = {"python": python, "whole": whole}[what](folder)
    (folder / f"{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()

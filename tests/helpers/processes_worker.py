"""One of two processes of a job, for tests/core/test_processes.py.

    python tests/helpers/processes_worker.py {messages,python,whole} FOLDER

Writes FOLDER/<rank>.json, and for the last two FOLDER/<rank>.safetensors.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import drc
from drc.core.distributed import (
    deal,
    helped,
    in_order,
    is_first,
    is_told,
    of_first,
    on_first,
    together,
)
from drc.core.errors import BudgetError, DataError
from drc.core.exact_sum import ExactSum
from drc.core.messages import size
from drc.networks.registry import build
from drc.settings.runs import RecoverySettings

RANK = int(os.environ.get("RANK", "0"))


def messages() -> dict[str, Any]:
    """Everything that processes tell each other, and every way to fail."""
    found: dict[str, Any] = {}
    with together("cpu"):
        found["first"] = is_first()
        found["dealt"] = list(deal(iter("abcde")))  # the others read none
        found["in_order"] = in_order([(n, n * n) for n, _ in deal(iter("abcde"))])
        found["of_first"] = of_first(lambda: f"from {RANK}")
        found["led"] = on_first(lambda: (RANK, size(), list(deal(iter("ab")))))
        found["shared"] = on_first(lambda: helped(lambda: _share(3), 3), _share)
        for name, work in (("first", _fails_in_first), ("other", _fails_in_other)):
            try:
                work()
            except DataError as error:
                found[f"{name} fails"] = [str(error), is_told(error)]
        found["mended"] = on_first(_mend, _other_cannot)
        sums = ExactSum((2,), 4)
        for number, term in deal(iter([1e-9, 1.0, 1e9, 3.0])):
            sums.add(torch.tensor([term, number], dtype=torch.float64))
        found["sum"] = sums.total().tolist()
    try:
        with together("cpu"):
            if RANK == 1:
                raise BudgetError("out of reach")
    except BudgetError as error:
        found["ends"] = str(error)
    return found


def _share(terms: int) -> list[int]:
    return in_order([(n, n) for n, _ in deal(iter(range(terms)))])


def _fails_in_first() -> None:
    on_first(lambda: _raise("the first"))


def _fails_in_other() -> None:
    on_first(lambda: helped(lambda: _share(3)), lambda: _other_cannot())


def _other_cannot() -> None:
    _raise("the other")


def _mend() -> str:
    """The first can go on by itself when the others cannot help."""
    try:
        return str(helped(lambda: _share(3)))
    except DataError as error:
        return f"without: {error}"


def _raise(text: str) -> None:
    raise DataError(text)


def python(folder: Path) -> dict[str, Any]:
    """`drc.search` and `drc.prune` as a script of the user's calls them."""
    torch.manual_seed(0)
    model = build("drn_tiny")
    # Were it read in every process, the others would see other images.
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
    found = messages() if what == "messages" else {"python": python, "whole": whole}[what](folder)
    (folder / f"{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()

"""One task on one network of the zoo, in a process of its own, which the parent starts.

    python -m benchmarks.coverage.child TASK NETWORK FOLDER GIGABYTES

Every fact is appended to FOLDER/TASK.jsonl as soon as it is known, so that a process that is
stopped by its time or memory limit has still told what it had found.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo import networks
from drc.evaluation.memory import forget_peak, peak_resident_mib, resident_mib
from drc.graph.inputs import call, example_input, tensors_of

_NO_WEIGHT = 1e-4


class Log:
    """The facts of one task, in a file that the parent process reads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def facts(self, **values: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Say what is being done, and record an exception as `NAME_error` in one line."""
        self.facts(stage=name)
        try:
            yield
        except Exception as error:
            self.facts(**{f"{name}_error": one_line(error)})


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:240]


def images(outputs: Any) -> list[Tensor]:
    """The floating-point tensors among a network's outputs."""
    return [x for x in tensors_of(outputs) if x.is_floating_point()]


def build(name: str) -> tuple[nn.Module, Any]:
    """A network of the zoo and its inputs.

    Parameters that start at zero get values: a branch that is closed would hide its faults.
    """
    entry = networks()[name]
    model = entry.build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.abs().max() < _NO_WEIGHT:
                noise = 0.1 * torch.rand(parameter.shape, generator=generator)
                parameter.copy_(noise)
    return model, entry.inputs() if entry.inputs else example_input(model)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_memory(log: Log, name: str, work: Callable[[nn.Module, Any], object]) -> None:
    """Record the peak of the process during `work`, in MB: all of it, and what the network adds.

    Both are of resident memory as Linux counts it. What the network adds begins before it is
    built, when its code and all libraries are loaded and `work` has been done on a small network.
    """
    work(*build("gated"))
    build(name)
    forget_peak()
    before = resident_mib()
    model, inputs = build(name)
    forget_peak()
    work(model, inputs)
    peak = peak_resident_mib()
    log.facts(process_mb=round(peak, 1), added_mb=round(peak - before, 1))


def forward(model: nn.Module, inputs: Any) -> Any:
    with torch.no_grad():
        return call(model, inputs)


def main() -> None:
    task, name, folder, limit_gb = *sys.argv[1:4], float(sys.argv[4])
    limit = int(limit_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    log = Log(Path(folder) / f"{task}.jsonl")
    with log.stage(task):
        if task == "forward_memory":
            peak_memory(log, name, forward)
        elif task == "trace_memory":
            from drc.graph.trace import trace

            peak_memory(log, name, trace)
        elif task == "rival":
            from benchmarks.coverage.rival import rival

            rival(log, name)
        elif task.startswith("onnx"):
            from benchmarks.coverage.onnx import export

            export(log, name, Path(folder), task)
        else:
            from benchmarks.coverage import checks

            getattr(checks, task)(log, name, Path(folder))
    log.facts(stage="done")


if __name__ == "__main__":
    main()

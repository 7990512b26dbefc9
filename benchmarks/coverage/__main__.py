"""Which networks drc can prune, and how well; the same for stock torch-pruning.

    python -m benchmarks.coverage [--only NAME ...] [--fresh] [--markdown FILE]

Every network of `benchmarks/zoo` goes through several tasks, each in a process of its own with a
time limit per step and a memory limit: drc traces it, cuts 30 % of its parameters, compares with
masking, saves, reloads, trains and exports the result; torch-pruning prunes it. What is done
already is read from the results and not done again, unless `--fresh` is given; a run that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, parser, read_result, versions, write_result
from benchmarks.coverage.table import markdown, print_table, totals
from benchmarks.zoo import networks

EXPORTERS = ("torchscript", "dynamo")
PARTIAL = "coverage_partial"
TOOLS = ("spandrel", "torch-pruning", "onnx", "onnxruntime", "onnxscript", "einops")


def main() -> None:
    options = _options()
    tools = versions(*TOOLS)
    if missing := [tool for tool, found in tools.items() if found is None]:
        sys.exit(f"not installed: {', '.join(missing)}")
    zoo = networks()
    unknown = sorted(set(options.only) - zoo.keys())
    if unknown:
        sys.exit(f"no network is called {', '.join(unknown)}; known: {', '.join(zoo)}")
    done = (read_result(PARTIAL) or read_result("coverage")).get("networks", {})
    if options.fresh:
        done = {name: facts for name, facts in done.items() if options.only and name in zoo}
    for name in options.only or zoo:
        known = done.get(name, {"quick": True} if not options.quick else None)
        if known is not None and not options.fresh and (options.quick or "quick" not in known):
            continue
        print(f"{name} ...", end=" ", flush=True)
        start = time.perf_counter()
        record = {"kind": zoo[name].kind, **_measure(name, options)}
        done[name] = record
        write_result(PARTIAL, {"networks": done}, say=False)
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    results = {name: done[name] for name in zoo if name in done}
    print_table(results)
    values = {
        "limits": {
            "seconds_per_step": options.seconds,
            "tool_seconds": options.tool_seconds,
            "memory_gb": options.memory,
        },
        "threads_per_process": 1,
        "tools": tools,
        "totals": totals(results),
        "networks": results,
    }
    write_result("coverage", values)
    (RESULTS / f"{PARTIAL}.json").unlink(missing_ok=True)
    if options.markdown:
        options.markdown.write_text(markdown(results))


def _options() -> argparse.Namespace:
    made = parser(__doc__, seconds=300.0, tool_seconds=120.0, memory=16.0)
    made.epilog = "seconds: of one step, of the exporters and torch-pruning; memory: a process, GB"
    add = made.add_argument
    add("--only", nargs="+", default=[], metavar="NAME", help="these networks")
    add("--fresh", action="store_true", help="measure again what is there already")
    add("--quick", action="store_true", help="trace, cut and compare, no more")
    add("--markdown", type=Path, metavar="FILE", help="write the table for docs")
    return made.parse_args()


def _measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All tasks of one network; their facts in one record."""
    folder = Path(tempfile.mkdtemp(prefix="coverage-"))

    def run(task: str) -> dict[str, Any]:
        return _child(task, name, folder, options)

    try:
        record = run("prune")
        if options.quick:
            return {**record, "quick": True}
        if (folder / "expected.pt").exists():
            record.update(run("apply"))
            record.update(_export(run))
        for task in ("forward_memory", "trace_memory"):
            record.update({f"{task.partition('_')[0]}_{key}": v for key, v in run(task).items()})
        record.update(run("rival"))
    finally:
        shutil.rmtree(folder)
    return record


def _export(run: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """The first exporter that works for the cut network; if none does, whether one would else."""
    errors = {}
    for what in ("cut", "dense"):
        for exporter in EXPORTERS:
            task = f"onnx_{what}_{exporter}"
            facts = run(task)
            if task not in facts:
                errors[f"{what}, {exporter}"] = facts.get(f"{task}_error", "no result")
            elif what == "cut":
                return {"onnx": exporter, "onnx_difference": facts[task]}
            else:
                return {"onnx": "fails", "onnx_errors": errors}
    return {"onnx": "n/a (dense fails too)", "onnx_errors": errors}


def _child(task: str, name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one task in its own process and collect what it wrote."""
    log = folder / f"{task}.jsonl"
    command = [sys.executable, "-m", "benchmarks.coverage.child", task, name, str(folder)]
    command.append(str(options.memory))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = folder / f"{task}.txt"
    with said.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        of_a_tool = task.startswith(("onnx", "rival"))
        end = _wait(process, log, options.tool_seconds if of_a_tool else options.seconds)
    facts: dict[str, Any] = {}
    stage = "start"
    for line in log.read_text().splitlines() if log.exists() else ():
        values = json.loads(line)
        stage = values.pop("stage", stage)
        facts.update(values)
    if stage != "done":
        facts.setdefault(f"{task}_error", f"{end} during {stage}{_last_line(said)}")
    return facts


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return f" ({lines[-1][:160]})" if lines else ""


def _wait(process: subprocess.Popen[bytes], log: Path, seconds: float) -> str:
    """Wait for a process as long as it reports something every `seconds`; say how it ended."""
    last, heard = 0, time.monotonic()
    try:
        while process.poll() is None:
            size = log.stat().st_size if log.exists() else 0
            if size != last:
                last, heard = size, time.monotonic()
            if time.monotonic() - heard > seconds:
                return f"stopped after {seconds:.0f} s"
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "crashed" if process.returncode else "ended"


if __name__ == "__main__":
    main()

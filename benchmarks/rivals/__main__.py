"""Every method on equal terms: one network, the same data, recovery, seeds and removed fractions.

    python -m benchmarks.rivals drn_tiny
    python -m benchmarks.rivals craft_x4 --methods ours,uniform+l1,dense --ratios 0.3 --seeds 0
    python -m benchmarks.rivals edsr_baseline --weights edsr.safetensors --train-steps 3000
    python -m benchmarks.rivals --table

Methods are those of `methods.py`, or STRATEGY+IMPORTANCE[+refit] of drc's own names; each
removes the same fraction of the parameters. Calibration and recovery read the images of --data
less the last 20 in name order; on these (`held_out`) choices are made. Set5 and Set14 report only.
A row is measured right after pruning and after each length of recovery, every one of which starts
from the pruned network, since the learning rate follows the length. Recovery is the same for all,
`dense` included, which gets it as it is: Adam to the HR image, the dense network's output and the
dual loss. The cost of a search is counted in crops that go forward and backward, and in passes of
16 crops, as the published search has them. Speed-up is the dense network's time over the pruned
one's, both in turn, at LR 96x96, on --device, with the number of threads in each row.

Rows go to benchmarks/results/rivals_NETWORK.json as soon as they are measured; a later run does
what is missing. Runs of other seeds or methods may go on at the same time. A file of other terms
(weights, data, batch, learning rate ...) is never mixed with.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.common import HELD_OUT, RESULTS, SCALE, Crops, listed, parser, shared_folder
from benchmarks.rivals.bench import Bench
from benchmarks.rivals.methods import DENSE, METHODS, find_method
from benchmarks.rivals.networks import NETWORKS, open_dense
from benchmarks.rivals.results import Results, Row
from benchmarks.rivals.table import tables
from drc.core.errors import DrcError
from drc.core.runtime import resolve_device
from drc.data.folders import find_pairs
from drc.settings import RecoverySettings


def main() -> None:
    options = _options()
    if options.table:
        _print_tables(options.name or (options.network and f"rivals_{options.network}"))
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    wanted = _rows(options)  # before the network is read, so that a wrong name shows at once
    bench = _bench(options)
    name = options.name or f"rivals_{options.network}"
    results = Results(name, options.network, bench.terms(), bench.baseline)
    rows = [row for row in wanted if options.again or _missing(results, row, options.steps)]
    clock = _Clock(len(rows))
    for row in rows:
        clock.say("{method}, ratio {ratio}, seed {seed}".format(**row))
        try:
            _measure(bench, results, row, options)
        except DrcError as error:
            results.save({**results.find(row), "failed": str(error)})
            print(f"{row['method']} failed: {error}", file=sys.stderr)
        clock.done += 1
    print(tables(json.loads(results.path.read_text())))


def _measure(bench: Bench, results: Results, row: Row, options: argparse.Namespace) -> None:
    """Measure what the row on file lacks, and write it after each length of recovery."""
    pruned, facts = _pruned(bench, results, row)
    old = row if options.again else results.find(row)
    if old.get("params") == facts["params"]:
        row = old
    else:  # there is none, or code that has changed since pruned it
        if pruned is bench.model:
            quality = results.head["dense"]["quality"]
        else:
            quality, facts["speed"] = bench.quality(pruned), bench.speed(pruned)
        row = {**row, **facts, "after": {"0": quality}}
        results.save(row)
    for steps in options.steps:
        if str(steps) not in row["after"]:
            recovered, seconds = bench.recover(pruned, steps, row["seed"])
            row["after"][str(steps)] = {**bench.quality(recovered), "recovery_seconds": seconds}
            results.save(row)


def _missing(results: Results, row: Row, lengths: list[int]) -> bool:
    old = results.find(row)
    return "failed" not in old and any(str(s) not in old.get("after", {}) for s in lengths)


def _pruned(bench: Bench, results: Results, row: Row) -> tuple[nn.Module, Row]:
    if row["method"] == DENSE:
        dense = results.head["dense"]
        return bench.model, {"params": dense["params"], "macs": dense["macs"]}
    return bench.compress(find_method(row["method"]), row["ratio"], row["seed"])


def _rows(options: argparse.Namespace) -> list[Row]:
    """What to measure, seed by seed, so that a run that is stopped has compared all methods."""
    jobs: list[tuple[str, float, int]] = []
    for seed in options.seeds:
        jobs += [(DENSE, 0.0, seed)] if DENSE in options.methods else []
        methods = [m for m in options.methods if m != DENSE]
        jobs += [(method, ratio, seed) for ratio in options.ratios for method in methods]
    recipes = {m: {} if m == DENSE else find_method(m).recipe() for m in options.methods}
    return [{"method": m, "ratio": r, "seed": s, "recipe": recipes[m]} for m, r, s in jobs]


def _bench(options: argparse.Namespace) -> Bench:
    device = resolve_device(options.device)
    folder = options.data or shared_folder() / "data" / "BSDS400"
    recovery = RecoverySettings(batch=options.batch, patch=options.patch, lr=options.lr)
    pairs = find_pairs(folder, SCALE)
    if len(pairs) <= HELD_OUT:
        sys.exit(f"{folder} holds {len(pairs)} images; {HELD_OUT} are held out, so more are needed")
    words = f"{len(pairs)} images of {folder.name}"
    crops = Crops(pairs[:-HELD_OUT], options.patch, options.batch, words)
    model, dual = open_dense(options.network, options.weights, options.train_steps, crops, device)
    return Bench(model, dual, crops, pairs[-HELD_OUT:], recovery, device, options.runs)


def _options() -> argparse.Namespace:
    usual = RecoverySettings()
    made = parser(
        __doc__, methods=[*METHODS, DENSE], ratios=[0.3, 0.5, 0.7], seeds=[0, 1, 2],
        batch=usual.batch, patch=usual.patch, lr=usual.lr, train_steps=0, device="auto",
    )  # fmt: skip
    add = made.add_argument
    add("network", nargs="?", choices=NETWORKS)
    add("--steps", type=listed(int), default=[0, 300, 3000], help="lengths of recovery")
    add("--only-pruned", action="store_true", help="no recovery: --steps 0")
    add("--data", type=Path, help="folder of training images; BSDS400 of the shared folder")
    add("--weights", help="a file, made by --train-steps if it is not there, or default")
    add("--threads", type=int, help="of the CPU; as many as torch takes")
    add("--runs", type=int, default=5, help="timed forward passes per network; 0 leaves them out")
    add("--name", help="of the result file, without .json; rivals_NETWORK")
    add("--again", action="store_true", help="measure rows that are there already")
    add("--table", action="store_true", help="print the tables of the result files, no more")
    options = made.parse_args()
    if options.network is None and not options.table:
        made.error("which network?")
    options.steps = [0] if options.only_pruned else sorted({0, *options.steps})
    return options


class _Clock:
    """Says on stderr what is being done, and about how long the rest takes."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start = total, 0, time.monotonic()  # in rows

    def say(self, what: str) -> None:
        left = "?"
        if self.done:
            seconds = (time.monotonic() - self.start) / self.done * (self.total - self.done)
            left = f"{seconds / 60:.0f} min"
        print(f"[{self.done / self.total:4.0%}, {left} left] {what}", file=sys.stderr, flush=True)


def _print_tables(name: str | None) -> None:
    paths = [RESULTS / f"{name}.json"] if name else sorted(RESULTS.glob("rivals_*.json"))
    for path in paths:
        if not path.exists():
            sys.exit(f"there is no {path} yet")
        print(tables(json.loads(path.read_text())))


if __name__ == "__main__":
    try:
        main()
    except DrcError as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)

"""How much faster pruned networks are in every runtime of `drc export`, and how large the files.

    python -m benchmarks.speed.runtimes --threads 1
    python -m benchmarks.speed.runtimes --networks drn_s --modes eager,onnx,openvino

Networks have the weights that are stored here. They are pruned by the default search, ranking and
refit to each of the ratios, and not recovered, which takes no time off. In every runtime the dense
and the pruned ones take turns. Heavy networks are measured at the first size alone.
Networks that are not measured again stay in the result.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import nn

import drc
from benchmarks.common import parser, read_result, stored_weights, versions, write_result
from drc.core.errors import DrcError
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.evaluation.speed import Timing, bench
from drc.exporters.backends import FileBackend, backends
from drc.networks.traits import get_traits

NETWORKS = ("drn_tiny", "slwsr16", "swinir_light")
HEAVY = ("swinir_light", "drn_s")
MODES = ("eager", "onnx", "onnx_int8", "openvino", "openvino_fp16", "ncnn", "pt2")
RUNTIMES = ("onnxruntime", "openvino", "ncnn", "pnnx")


def main() -> None:
    options = parser(
        __doc__, networks=[*NETWORKS], modes=[*MODES], ratios=[0.3, 0.5],
        sizes=["96x96", "144x144"], runs=5, threads=torch.get_num_threads(), patches=16,
        name="runtimes",
    ).parse_args()  # fmt: skip
    torch.set_num_threads(options.threads)
    for name in options.networks:
        started = time.perf_counter()
        row = _network(name, options)
        row["seconds"] = round(time.perf_counter() - started)
        networks = {**read_result(options.name).get("networks", {}), name: row}
        values = {"runtimes": versions(*RUNTIMES), "networks": networks}
        write_result(options.name, values, say=False)
        print(f"{name}: {row['seconds']} s", flush=True)


def _network(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One network, dense and pruned, in every mode."""
    networks = _pruned(name, options.ratios, options.patches)
    sizes = [tuple(int(side) for side in text.split("x")) for text in options.sizes]
    sizes = sizes[:1] if name in HEAVY else sizes
    costs = {key: drc.complexity(network, (96, 96)) for key, network in networks.items()}
    row: dict[str, Any] = {
        "weights": "shipped" if name == "drn_tiny" else stored_weights(name).name,
        "runs": options.runs,
        "params": {key: cost.params for key, cost in costs.items()},
        "macs": {key: cost.macs for key, cost in costs.items()},
        "modes": {},
    }
    with backends(options.modes) as others:
        for timings in bench(
            networks, sizes, options.modes, runs=options.runs, device="cpu", others=others
        ):
            mode, lr = timings[0].mode, "x".join(map(str, timings[0].lr_size))
            entry = row["modes"].setdefault(mode, {"sizes": {}})
            entry["sizes"][lr] = {timing.network: _figures(timing) for timing in timings}
            if mode in others:
                entry["bytes"] = {key: _bytes(others[mode], n) for key, n in networks.items()}
            print(name, mode, lr, entry["sizes"][lr], flush=True)
    return row


def _pruned(name: str, ratios: list[float], patches: int) -> dict[str, nn.Module]:
    """The dense network, and one for every ratio, by name."""
    weights = "default" if name == "drn_tiny" else str(stored_weights(name))
    dense = drc.create_model(name, weights=weights)
    scale = get_traits(dense).scale
    loader = crop_loader(
        bundled_pairs("train"), scale, patch=32, batch=4, steps=-(-patches // 4), seed=0
    )
    few = drc.SearchSettings(patches=patches)
    plans = drc.search(dense, loader, ratios, settings=few, device="cpu")
    networks = {"dense": dense}
    for ratio, plan in zip(ratios, plans, strict=True):
        networks[f"{ratio:.0%}"] = drc.prune(dense, plan, loader, calibration=few, device="cpu")
    return networks


def _figures(timing: Timing) -> dict[str, Any]:
    if timing.median_ms is None:
        return {"failure": timing.failure}
    found = {"ms": round(timing.median_ms, 2)}
    if timing.speedup is not None:
        found["speedup"] = round(timing.speedup, 3)
    if timing.peak_mib is not None:
        found["peak_mib"] = round(timing.peak_mib, 1)
    return found


def _bytes(backend: FileBackend, network: nn.Module) -> int | None:
    try:
        return backend.exported(network).bytes
    except DrcError:
        return None


if __name__ == "__main__":
    main()

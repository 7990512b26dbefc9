"""How much faster pruned networks are in every runtime of `drc export`, and how large the files.

    python benchmarks/runtimes.py --threads 1
    python benchmarks/runtimes.py --networks drn_s --modes eager onnx openvino

Networks have the weights that are stored here. They are pruned by the default search, ranking and
refit to each of the ratios, and not recovered, which takes no time off. In every runtime the dense
and the pruned ones take turns. Heavy networks are measured at the first size alone.
Networks that are not measured again stay in the result.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, write_result
from torch import nn

import drc
from drc.core.errors import DrcError
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.evaluation.speed import Timing, bench
from drc.exporters.backends import FileBackend, backends
from drc.networks.traits import get_traits

WEIGHTS = Path(__file__).parent / "weights"
NETWORKS = ("drn_tiny", "slwsr16", "swinir_light")
HEAVY = ("swinir_light", "drn_s")
MODES = ("eager", "onnx", "onnx_int8", "openvino", "openvino_fp16", "ncnn", "pt2")
RUNTIMES = ("onnxruntime", "openvino", "ncnn", "pnnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.3, 0.5])
    parser.add_argument("--sizes", nargs="+", default=["96x96", "144x144"], metavar="HxW")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--patches", type=int, default=16, help="calibration crops")
    parser.add_argument("--name", default="runtimes", help="of the result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.networks:
        started = time.perf_counter()
        row = _network(name, options)
        row["seconds"] = round(time.perf_counter() - started)
        networks = {**_earlier(options.name), name: row}
        runtimes = {package: _version(package) for package in RUNTIMES}
        write_result(options.name, {"runtimes": runtimes, "networks": networks}, tell=False)
        print(f"{name}: {row['seconds']} s", flush=True)


def _earlier(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text())["networks"] if path.is_file() else {}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _network(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One network, dense and pruned, in every mode."""
    networks = _pruned(name, options.ratios, options.patches)
    sizes = [tuple(int(side) for side in text.split("x")) for text in options.sizes]
    sizes = sizes[:1] if name in HEAVY else sizes
    costs = {key: drc.complexity(network, (96, 96)) for key, network in networks.items()}
    row: dict[str, Any] = {
        "weights": "shipped" if name == "drn_tiny" else _stored(name).name,
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
    weights = "default" if name == "drn_tiny" else str(_stored(name))
    dense = drc.create_model(name, weights=weights)
    scale = get_traits(dense).scale
    loader = crop_loader(
        bundled_pairs("train"), scale, patch=32, batch=4, steps=-(-patches // 4), seed=0
    )
    plans = drc.search(dense, loader, ratio=ratios, patches=patches, device="cpu")
    networks = {"dense": dense}
    for ratio, plan in zip(ratios, plans, strict=True):
        networks[f"{ratio:.0%}"] = drc.prune(dense, plan, loader, patches=patches, device="cpu")
    return networks


def _stored(name: str) -> Path:
    return WEIGHTS / f"{name}_x4.safetensors"


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

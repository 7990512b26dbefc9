"""Which formats `drc export` can write for which networks: on initial weights, each in a process.

    python -m benchmarks.speed.export_matrix --only slwsr16,imdn --formats onnx,pt2

What was measured earlier stays in the result unless it is measured again, so that the table can be
made in parts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import in_own_process, parser, read_result, versions, write_result

NETWORKS = ("drn_tiny", "drn_s", "edsr_baseline", "imdn", "slwsr16", "swinir_light", "dat", "dcls")
FORMATS = ("onnx", "openvino", "ncnn", "pt2")
RUNTIMES = ("onnx", "onnxruntime", "openvino", "ncnn", "pnnx")


def main() -> None:
    options = parser(__doc__, only=[*NETWORKS], formats=[*FORMATS], seconds=600.0)
    options.add_argument("--lr-size", help="a file of one size, HxW")
    options.add_argument("--child", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child is not None:
        print(json.dumps(_measure(given.only[0], given.formats[0], given.lr_size, given.child)))
        return
    for network in given.only:
        for to in given.formats:
            found = _in_a_process(network, to, given.lr_size, given.seconds)
            key = f"{network} {to}" + (f" {given.lr_size}" if given.lr_size else "")
            files = {**read_result("export").get("files", {}), key: found}
            write_result("export", {"runtimes": versions(*RUNTIMES), "files": files}, say=False)
            print(key, json.dumps(found)[:200], flush=True)


def _in_a_process(network: str, to: str, lr_size: str | None, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["--only", network, "--formats", to, "--child", folder]
        command += ["--lr-size", lr_size] if lr_size else []
        return in_own_process(*command, seconds=seconds)


def _measure(network: str, to: str, lr_size: str | None, folder: str) -> dict[str, Any]:
    """One file without timing: what made it, its size, and how near it is."""
    import drc
    from drc.core.errors import DrcError

    weights = "default" if network == "drn_tiny" else None
    model = drc.create_model(network, 4, weights=weights)
    size = None if lr_size is None else tuple(int(side) for side in lr_size.split("x"))
    started = time.perf_counter()
    try:
        found = drc.export(model, Path(folder) / network, to=to, lr_size=size, runs=0)
    except DrcError as error:
        return {"failure": str(error).replace(folder, "FOLDER")[:500]}
    return {
        "exporter": found.exporter,
        "opset": found.opset,
        "bytes": found.bytes,
        "lr_sizes": [check.lr_size for check in found.parity],
        "least": found.least,
        "largest": max(check.largest or 0.0 for check in found.parity),
        "psnr": min(check.psnr or 0.0 for check in found.parity),
        "seconds": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    main()

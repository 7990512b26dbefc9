"""Our own weights of the papers' networks, and what compression makes of them.

    drc train --config benchmarks/weights/NAME.yaml --data BSDS400 --output RUN
    python -m benchmarks.papers.own_weights store NAME RUN
    python -m benchmarks.papers.own_weights measure NAME --ratios 0.3

`store` keeps a training's weights in half precision, with their checksum. `measure` runs the tool's
own command, `drc compress`, on the stored weights, and keeps what its report says: right after
pruning and after recovery, on Set5 and Set14, beside the papers' figures. DCLS is measured on both
sets blurred by random anisotropic kernels (`drc degrade`, seed 0).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save_file

from benchmarks.common import (
    WEIGHTS,
    measured_sets,
    parser,
    read_result,
    shared_folder,
    stored_weights,
    write_result,
)
from drc.core.files import write_text
from drc.report.paper import published

CHECKSUMS = WEIGHTS / "checksums.yaml"
BLIND = ("dcls",)
PAPERS = {"slwsr16": [{"model": "slwsr16", "scale": 4, "data": "Set5", "psnr": 31.62}]}
"""Figures of a paper that compresses nothing."""


def main() -> None:
    given = parser(__doc__, ratios=[0.3], steps=1000, batch=8, patch=24, amp="bf16")
    given.add_argument("what", choices=("store", "measure"))
    given.add_argument("name")
    given.add_argument("run", type=Path, nargs="?", help="of `store`: the folder of the training")
    options = given.parse_args()
    if options.what == "store":
        store(options.name, options.run)
    else:
        for ratio in options.ratios:
            measure(options.name, ratio, options)


def store(name: str, run: Path) -> None:
    """Keep a training's network and dual model in half precision, and how they came about."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max((line for line in lines if "validation" in line), key=lambda x: x["validation"])
    entry: dict[str, Any] = {
        "training": {
            "command": f"drc train --config benchmarks/weights/{name}.yaml --data BSDS400",
            "steps": config["train"]["steps"],
            "best_step": best["step"],
            "held_out_psnr": best["validation"],
            "seconds": round(lines[-1]["seconds"]),
        }
    }
    for stem, file in (("trained", f"{name}_x4"), ("dual", f"{name}_x4_dual")):
        source = run / f"{stem}.safetensors"
        if not source.is_file():
            continue
        state = {k: v.half() if v.is_floating_point() else v for k, v in load_file(source).items()}
        path = WEIGHTS / f"{file}.safetensors"
        save_file(state, path)
        entry[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    known = yaml.safe_load(CHECKSUMS.read_text()) if CHECKSUMS.is_file() else {}
    write_text(CHECKSUMS, yaml.safe_dump({**(known or {}), name: entry}))


def measure(name: str, ratio: float, options: argparse.Namespace) -> None:
    """Compress the stored weights and add the row to the result file."""
    stored = yaml.safe_load(CHECKSUMS.read_text())[name]
    row: dict[str, Any] = {"network": name, "ratio": ratio, "training": stored["training"]}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = _command(name, ratio, options, Path(folder))
        subprocess.run([sys.executable, "-m", "drc", *command, "--output", run], check=True)
        report = json.loads((run / "report.json").read_text())
    for moment in ("before", "pruned_only", "after"):
        side = report[moment]
        row[moment] = {key: side[key] for key in ("params", "macs", "psnr", "ssim") if key in side}
    for data in ("Set5", "Set14"):
        images = [i for i in report["data"]["images"] if i["name"].startswith(f"{data}/")]
        row[data] = {
            key: round(statistics.fmean(i[key] for i in images), 4)
            for key in ("psnr_before", "psnr_after", "ssim_before", "ssim_after")
            if images
        }
    row["seconds"] = {step: facts["seconds"] for step, facts in report["steps"].items()}
    row["recovery"] = _without_folders(report["data"]["recovery"], folder)
    row["command"] = _without_folders(" ".join(["drc", *command]), folder)
    row["papers"] = [asdict(f) for f in published() if name in (f.model, f.dense)] or PAPERS[name]
    rows = read_result("own_weights").get("rows", [])
    rows = [old for old in rows if (old["network"], old["ratio"]) != (name, ratio)]
    write_result(
        "own_weights", {"rows": sorted([*rows, row], key=lambda r: (r["network"], r["ratio"]))}
    )
    print(
        {key: row[key] for key in ("network", "ratio", "before", "pruned_only", "after")},
        flush=True,
    )


def _without_folders(text: str, folder: str) -> str:
    """A text without the folders of this machine."""
    words = {str(WEIGHTS): "benchmarks/weights", f"{shared_folder() / 'data'}/": "", folder: "."}
    for path, word in words.items():
        text = text.replace(path, word)
    return text


def _command(name: str, ratio: float, options: argparse.Namespace, folder: Path) -> list[Any]:
    data = shared_folder() / "data"
    test = data / "benchmark"
    command = [
        "compress", "--weights", stored_weights(name), "--data", data / "BSDS400",
        "--ratio", ratio, "--steps", options.steps, "--batch", options.batch, "--patch",
        options.patch, "--amp", options.amp,
    ]  # fmt: skip
    dual = WEIGHTS / f"{name}_x4_dual.safetensors"
    if dual.is_file():
        command += ["--dual", dual]
    settings: dict[str, Any] = {}
    if name in BLIND:
        settings["data"] = {"degradation": "aniso"}
        test = folder / "blind"
        for part, images in measured_sets().items():
            make = ["degrade", images / "HR", test / part, "--quiet"]
            subprocess.run([sys.executable, "-m", "drc", *map(str, make)], check=True)
    if not dual.is_file():
        settings["recovery"] = {"dual_weight": 0}
    if settings:
        config = folder / "settings.yaml"
        config.write_text(yaml.safe_dump(settings))
        command += ["--config", config]
    return [str(part) for part in [*command, "--test-data", test]]


if __name__ == "__main__":
    main()

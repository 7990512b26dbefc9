"""DRN against the official networks: outputs, parameters and MACs.

    python benchmarks/parity.py

Outputs are compared on the parity files, with weights set by formula from the parameters' names;
parameters and MACs (fvcore, LR 96x96) with the published table.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from common import shared_folder, write_result

import drc
from drc.models.dual import DownStep

PUBLISHED = Path(__file__).resolve().parents[1] / "tests" / "data" / "published_drn.json"


def main() -> None:
    outputs = {
        "drn_s_x4": parity("drn_s_x4", drc.create_model("drn_s")),
        "drn_s30_x4": parity("drn_s30_x4", drc.create_model("drn_s30")),
        "drn_dual_x2": parity("drn_dual_x2", DownStep(3, 16, 3)),
    }
    table = {}
    for key, published in json.loads(PUBLISHED.read_text()).items():
        name, _, scale = key.rpartition("_x")
        counted = drc.complexity(drc.create_model(name, scale=int(scale)))
        table[key] = {
            "params": counted.params,
            "params_difference": counted.params - published["params"],
            "macs": counted.macs,
            "macs_g_published": published["macs_g"],
            "macs_g_difference": round(counted.macs / 1e9 - published["macs_g"], 2),
            "counter": counted.counter,
            "thop_macs": counted.thop_macs,
        }
        print(f"{key}: {counted.params:,} parameters, {counted.macs / 1e9:.2f} G MACs")
    write_result("parity", {"outputs": outputs, "complexity": table})


@torch.no_grad()
def parity(name: str, model: torch.nn.Module) -> dict[str, float]:
    """Largest difference to the official outputs, absolute and as a share of their range."""
    spec = shared_folder() / "spec"
    schema = json.loads((spec / f"{name}.json").read_text())
    assert [[k, list(v.shape)] for k, v in model.state_dict().items()] == [
        entry[:2] for entry in schema["state_dict"]
    ]
    fixed = {k: v.clone() for k, v in model.state_dict().items() if "mean" in k}
    loader = importlib.util.spec_from_file_location("fill", spec / "fill.py")
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    module.fill(model)
    model.load_state_dict(fixed, strict=False)
    with np.load(spec / f"{name}.npz") as arrays:
        found = model(torch.from_numpy(arrays["x"]))
        found = found if isinstance(found, list) else [found]
        wanted = [torch.from_numpy(arrays[f"y{i}"]) for i in range(len(found))]
    error = max((x - y).abs().max().item() for x, y in zip(found, wanted, strict=True))
    span = max((y.max() - y.min()).item() for y in wanted)
    print(f"{name}: largest difference {error:.2e} of a range of {span:.1f}")
    return {"max_difference": error, "share_of_range": error / span}


if __name__ == "__main__":
    main()

"""The registered networks against the official ones: outputs, parameters and MACs.

    python -m benchmarks.papers.parity

Outputs are compared on the parity files, with weights set by formula from the parameters' names;
parameters and MACs (fvcore, LR 96x96) with the papers' tables. Costs of all registered networks go
to drc/networks/zoo/costs.yaml, which `drc models` shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

import drc
from benchmarks.common import cost, shared_folder, write_result
from drc.networks.dual import ChainDual, DownStep
from drc.networks.registry import get_preset, list_models
from drc.report.paper import measure, to_json

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))
COSTS = ROOT / "drc" / "networks" / "zoo" / "costs.yaml"
_HEAD = (
    "# Written by benchmarks.papers.parity: parameters, MACs by fvcore at LR 96x96, tensors in\n"
    "# the state dict, by which checkpoints are recognised.\n"
)


def main() -> None:
    outputs = {name: _compare(name, run) for name, run in _networks().items()}
    paper = to_json(list(measure()))
    costs = {}
    for name in list_models():
        for scale in get_preset(name).arguments:
            model = drc.create_model(name, scale)
            found = costs[f"{name}_x{scale}"] = {**cost(model), "tensors": len(model.state_dict())}
            print("{} x{}: {params:,} parameters, {macs:,} MACs".format(name, scale, **found))
    COSTS.write_text(_HEAD + yaml.safe_dump(costs, default_flow_style=None, sort_keys=True))
    write_result("parity", {"outputs": outputs, "paper": paper})


def _networks() -> dict[str, Callable[[Tensor], list[Tensor]]]:
    """What gives the outputs of each parity file."""
    from helpers.parity import fill, fill_dcls

    shared = shared_folder()

    def plain(name: str) -> Callable[[Tensor], list[Tensor]]:
        model = drc.create_model(name)
        fill(shared, model)
        return lambda x: y if isinstance(y := model(x), list) else [y]

    def with_dual(name: str) -> Callable[[Tensor], list[Tensor]]:
        model, dual = drc.create_model(name), ChainDual(4)
        fill(shared, model)
        fill(shared, nn.ModuleDict({"dual_model": dual}))
        return lambda x: [y := model(x), *dual(y)]

    def blind(name: str) -> Callable[[Tensor], list[Tensor]]:
        model = drc.create_model(name)
        fill_dcls(shared, model)
        return lambda x: list(model.restore(x))

    step = DownStep(3, 16, 3)
    fill(shared, step)
    return {
        "drn_s_x4": plain("drn_s"),
        "drn_s30_x4": plain("drn_s30"),
        "drn_dual_x2": lambda x: [step(x)],
        "swinir_light_x4": plain("swinir_light"),
        "swinir_light_drc_x4": plain("swinir_light_drc"),
        "swinir_light_drc_dual_x4": with_dual("swinir_light_drc"),
        "dat_x4": with_dual("dat"),
        "dcls_x4": blind("dcls"),
        "dcls_drc_x4": blind("dcls_drc"),
        "slwsr32_x4": plain("slwsr32"),
    }


@torch.no_grad()
def _compare(name: str, run: Callable[[Tensor], list[Tensor]]) -> dict[str, float]:
    """Largest difference to the official outputs, as a share of each output's range."""
    from helpers.parity import official

    _, arrays = official(shared_folder(), name)
    found = {f"y{i}": y for i, y in enumerate(run(arrays["x"]))}
    assert found.keys() == arrays.keys() - {"x"}
    shares = {
        key: (y - arrays[key]).abs().max().item() / (arrays[key].max() - arrays[key].min()).item()
        for key, y in found.items()
    }
    print(f"{name}: largest difference {max(shares.values()):.1e} of the range")
    return shares


if __name__ == "__main__":
    main()

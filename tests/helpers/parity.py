"""The official networks as data: schemas, and outputs for weights that follow from their names."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def official(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    facts = json.loads((shared / "spec" / f"{name}.json").read_text("utf-8"))
    with np.load(shared / "spec" / f"{name}.npz") as arrays:
        return facts, {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def fill(shared: Path, model: nn.Module) -> None:
    """Formula weights, except for the constants of the mean shifts."""
    location = importlib.util.spec_from_file_location("fill", shared / "spec" / "fill.py")
    assert location is not None and location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    constants = {k: v.clone() for k, v in model.state_dict().items() if "_mean." in k}
    module.fill(model)
    model.load_state_dict(constants, strict=False)


def fill_dcls(shared: Path, model: nn.Module) -> None:
    """Formula weights of DCLS: see `formula_extra` in its schemas."""
    fill(shared, model)
    last = model.get_submodule("Restorer.upscale")[-1]
    with torch.no_grad():
        last.weight.mul_(1e-3)
        last.bias.fill_(0.5)
        for name, parameter in model.named_parameters():
            if ".dec." in name:
                parameter.copy_(0.1 * parameter.abs())


def worst(outputs: list[Tensor], arrays: dict[str, Tensor]) -> float:
    """The largest difference to the official outputs, as a fraction of the output's range."""
    assert len(outputs) == len(arrays) - 1
    worst = 0.0
    for index, output in enumerate(outputs):
        expected = arrays[f"y{index}"]
        assert output.shape == expected.shape
        spread = float(expected.max() - expected.min())
        worst = max(worst, float((output - expected).abs().max()) / spread)
    return worst

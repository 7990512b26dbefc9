"""The networks that the comparison compresses: their weights, and a dual model for each."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import drc
from benchmarks.common import SCALE, Loader, fitted_dual, shared_folder, train_from_scratch
from benchmarks.zoo.published import import_torchvision_without_its_kernels
from drc.networks.dual import AnyDual, dual_in
from drc.opening import open_network

NETWORKS = ("drn_tiny", "craft_x4", "swinir_light", "edsr_baseline", "drn_s")


def open_dense(
    name: str, weights: str | None, train_steps: int, loader: Loader, device: torch.device
) -> tuple[nn.Module, AnyDual]:
    """The dense network with its weights, and the dual model for all its rows, on `device`.

    `drn_tiny` ships with both. CRAFT is `weights/craft_x4.pth` of the shared folder. The others
    take `weights`: a file, or `default` for the published one; a file that is not there yet is
    made first, by training for `train_steps`. Where there is no trained dual model, one is fitted
    on calibration data of seed 0.
    """
    dual: AnyDual | None = None
    if name == "drn_tiny" and weights is None:
        model, dual = drc.create_model(name, weights="default", dual=True)
    elif name == "craft_x4":
        import_torchvision_without_its_kernels()
        model = open_network(None, weights or str(shared_folder() / "weights" / "craft_x4.pth"))
    else:
        if weights is None:
            sys.exit(f"{name} needs --weights: a file, or default; --train-steps N makes the file")
        if weights != "default" and not Path(weights).exists() and train_steps:
            trained, _ = train_from_scratch(name, loader, train_steps, device=device)
            Path(weights).parent.mkdir(parents=True, exist_ok=True)
            drc.save(trained, weights)
        model = drc.create_model(name, SCALE, weights=weights)
        dual = dual_in(weights, SCALE) if weights != "default" else None
    model = model.to(device)
    if dual is None:
        dual = fitted_dual(model, loader, device=device)
    return model, dual.to(device)

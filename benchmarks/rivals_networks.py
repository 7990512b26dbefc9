"""The networks that `rivals.py` compresses: their weights, and a dual model for each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import shared_folder
from torch import nn
from zoo.published import import_torchvision_without_its_kernels

import drc
from drc.data.batches import BatchReader
from drc.networks.dual import AnyDual, dual_in
from drc.networks.traits import get_traits
from drc.opening import open_network
from drc.settings import RecoverySettings, SearchSettings
from drc.training.dual_fit import fit_dual

Loader = Callable[..., Any]
"""Called as `loader(steps, start, seed)`: batches `start` to `steps` of a seed's random crops."""

NETWORKS = ("drn_tiny", "craft_x4", "swinir_light", "edsr_baseline", "drn_s")
SCALE = 4
_TRAINING = {"distill": 0.0, "dual_weight": 0.0, "lr": 4e-4}


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
            _train(name, Path(weights), train_steps, loader, device)
        model = drc.create_model(name, SCALE, weights=weights)
        dual = dual_in(weights, SCALE) if weights != "default" else None
    model = model.to(device)
    if dual is None:
        dual = _fitted_dual(model, loader, device)
    return model, dual.to(device)


def _train(name: str, path: Path, steps: int, loader: Loader, device: torch.device) -> None:
    """Train the named network from initial weights and write it to `path`."""
    torch.manual_seed(0)
    trained = drc.finetune(
        drc.create_model(name, SCALE),
        lambda start: loader(steps, start, 0),
        settings=RecoverySettings(steps=steps, **_TRAINING),
        device=device,
        progress=_tell,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    drc.save(trained, path)


def _fitted_dual(model: nn.Module, loader: Loader, device: torch.device) -> AnyDual:
    value_range, settings = get_traits(model).value_range, SearchSettings()
    reader = BatchReader(loader(8, 0, 0), SCALE, value_range, device)
    return fit_dual(reader, SCALE, value_range, steps=settings.dual_steps, seed=0, device=device)


def _tell(what: str, done: int, total: int, figures: dict[str, float]) -> None:
    if done % 100 == 0:
        print(f"training: {done} of {total}, loss {figures['loss']:.4g}", file=sys.stderr)

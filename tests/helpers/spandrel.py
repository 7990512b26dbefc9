"""Lets spandrel load beside a torch that torchvision was not built for, here and in commands."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

# Of torchvision's compiled operations it only asks whether these two exist.
_SHIM = """
import importlib.abc, sys

class Declare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch
            global library
            library = torch.library.Library("torchvision", "FRAGMENT")
            for op in ("nms", "qnms"):
                library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

sys.meta_path.insert(0, Declare())
"""
_KEPT: dict[str, object] = {}


@pytest.fixture(scope="session")
def spandrel() -> ModuleType:
    """The package, imported in this process."""
    if not _KEPT:
        exec(_SHIM, _KEPT)
    return pytest.importorskip("spandrel", exc_type=ImportError)


@pytest.fixture(scope="session")
def with_spandrel(spandrel: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which a command can import it too."""
    folder = tmp_path_factory.mktemp("shim")
    (folder / "sitecustomize.py").write_text(_SHIM)
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    }


def small_network(architecture: str) -> nn.Module:
    """A network of spandrel's, as narrow as its architecture allows, on random weights."""
    from spandrel.architectures import RCAN, SAFMN, SPAN, Compact, DRUNet, SwinIR

    torch.manual_seed(0)
    made: dict[str, nn.Module] = {
        "Compact": Compact.Compact(num_feat=16, num_conv=3, upscale=2),
        "DRUNet": DRUNet.DRUNet(in_nc=4, out_nc=3, nc=[8, 8, 8, 8], nb=2),
        "grey": Compact.Compact(num_in_ch=1, num_out_ch=1, num_feat=16, num_conv=2, upscale=2),
        "RCAN": RCAN.RCAN(scale=2, n_resgroups=1, n_resblocks=1, n_feats=16, reduction=4),
        "SAFMN": SAFMN.SAFMN(dim=16, n_blocks=2, upscaling_factor=4),
        "SwinIR": SwinIR.SwinIR(
            embed_dim=16,
            depths=[2],
            num_heads=[2],
            window_size=8,
            mlp_ratio=2.0,
            upscale=2,
            upsampler="pixelshuffledirect",
        ),
        "to_rgb": SPAN.SPAN(num_in_ch=1, num_out_ch=3, feature_channels=16, upscale=2),
    }
    return made[architecture].eval()


def saved_weights(architecture: str, folder: Path) -> Path:
    """A checkpoint of `small_network`."""
    path = folder / f"{architecture}.pth"
    torch.save({"params": small_network(architecture).state_dict()}, path)
    return path

"""The networks that coverage is measured on."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from . import hand_made, published
from .published import Entry

_OURS = ("drn_s", "drn_tiny")


def networks() -> dict[str, Entry]:
    """Every network by name: published ones, those of drc, hand-made ones."""
    ours = {name: Entry(name, partial(_ours, name), None, "drc") for name in _OURS}
    return {**published.NETWORKS, **ours, **hand_made.NETWORKS}


def _ours(name: str) -> nn.Module:
    import drc

    torch.manual_seed(0)
    return drc.create_model(name, scale=4)


__all__ = ["Entry", "networks"]

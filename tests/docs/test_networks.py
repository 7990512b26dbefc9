"""docs/networks.md says what the registered networks are: sizes, groups, weights, reach."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from drc.evaluation.inference import upscale_tiled
from drc.graph.trace import trace
from drc.networks.registry import Preset, build, get_preset, list_models
from drc.networks.traits import final_output
from drc.networks.zoo.dat import DAT
from drc.networks.zoo.dcls import DCLS
from drc.networks.zoo.drn import DRN
from drc.networks.zoo.edsr import EDSR
from drc.networks.zoo.imdn import IMDN
from drc.networks.zoo.rcan import RCAN
from drc.networks.zoo.rrdb import RRDBNet
from drc.networks.zoo.slwsr import SLWSR
from drc.networks.zoo.swinir import SwinIR

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "networks.md").read_text("utf-8")

# Of few channels, but with every kind of group.
SMALL: dict[str, Callable[[], nn.Module]] = {
    "drn": lambda: DRN(2, 32, 4),
    "swinir": lambda: SwinIR([2], 12, 2, scale=4, img_size=16),
    "dat": lambda: DAT([2], 64, 4, 2, (2, 4), 4, 16),
    "dcls": lambda: DCLS(32, 1, 1, 11, 24),
    "slwsr": lambda: SLWSR(8),
    "edsr": lambda: EDSR(2, 8),
    "rcan": lambda: RCAN(1, 2, 8, reduction=2),
    "rrdb": lambda: RRDBNet(8, 1, growth=6),
    "imdn": lambda: IMDN(32, 2),
}

# What makes a preset quick: few channels, and few blocks where one alone sees the whole image.
NARROW = {
    DRN: {"n_resblocks": 2, "n_feats": 8, "widths": None},
    SwinIR: {"embed_dim": 12, "widths": None},
    DAT: {"depth": [2], "embed_dim": 48},
    DCLS: {"features": 16, "groups": 1, "blocks": 1, "widths": None},
    SLWSR: {"n_feats": 4},
    EDSR: {"n_feats": 4},
    RCAN: {"n_resgroups": 1, "n_resblocks": 2, "n_feats": 4, "reduction": 2},
    RRDBNet: {"n_feats": 4, "growth": 2},
    IMDN: {"n_feats": 16, "n_blocks": 2},
}
WHOLE = "whole image"


def table(start: str, end: str) -> list[list[str]]:
    """The cells of the rows that begin with a name, between two pieces of text."""
    _, found, rest = PAGE.partition(f"\n{start}")
    assert found, start
    lines = [line for line in rest.partition(end)[0].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def narrow(preset: Preset) -> nn.Module:
    """A quick form of a preset, at its smallest scale."""
    scale = min(preset.arguments)
    arguments = {**preset.arguments[scale], **NARROW[preset.build]}  # type: ignore[index]
    return preset.build(scale=scale, **arguments).eval()


def test_every_network_is_listed_as_it_is() -> None:
    rows = {quoted(row[0])[0]: row[1:] for row in table("## All of them\n", "\n## ")}
    assert sorted(rows) == list_models()
    for name, (sizes, value_range, dual, weights) in rows.items():
        preset = get_preset(name)
        found = []
        for scale in sorted(preset.arguments):
            with torch.device("meta"):
                model = build(name, scale)
            found.append(f"x{scale} {sum(p.numel() for p in model.parameters()):,}")
        assert sizes == "; ".join(found), name
        assert value_range == f"0..{preset.value_range:g}"
        assert quoted(dual) == [preset.dual.__name__]  # type: ignore[attr-defined]
        files = [preset.weights.get(scale) for scale in preset.arguments]
        kinds = {"none" if f is None else "shipped" if f.packaged else "download" for f in files}
        assert {weights} == kinds, name


@pytest.mark.parametrize("family", SMALL)
def test_groups_are_those_listed(family: str) -> None:
    listed = [name for row in table(f"| groups of `{family}`", "\n\n") for name in quoted(row[0])]
    patterns = {name: re.escape(name).replace(r"\*", r"\d+") for name in listed}
    found = {re.sub(r"#\d+$", "", group.name) for group in trace(SMALL[family]().eval()).groups}
    for name, pattern in patterns.items():
        assert any(re.fullmatch(pattern, group) for group in found), name
    for group in found:
        assert any(re.fullmatch(pattern, group) for pattern in patterns.values()), group


def reach(model: nn.Module, side: int) -> int | None:
    """How many LR pixels to the side a pixel is felt, or None if it is to both ends.

    NaN in a pixel spreads wherever its value goes, however small its weight is.
    """
    start = side // 16 * 8
    places = (start, start + 7)  # both ends of a window of 8
    lr = torch.zeros(2, 3, 8, side)
    for number, place in enumerate(places):
        lr[number, :, :, place] = torch.nan
    with torch.no_grad():  # in double precision no fast convolution mixes up neighbours
        sr = final_output(model.double()(lr.double()))
    felt = sr.isnan().any(1).any(1).unflatten(-1, (side, -1)).any(-1)
    if felt.all():
        return None
    spread = [row.nonzero().flatten().tolist() for row in felt]
    assert all(found[0] > 0 and found[-1] < side - 1 for found in spread)
    sides = zip(places, spread, strict=True)
    return max(max(at - found[0], found[-1] - at) for at, found in sides)


def test_tiles_see_as_far_as_listed() -> None:
    rows = {name: row[1] for row in table("## Tiles\n", "\n## ") for name in quoted(row[0])}
    assert sorted(rows) == list_models()
    known: dict[str, int | None] = {}
    for name, listed in rows.items():
        model = narrow(get_preset(name))
        shapes = str([tuple(p.shape) for p in model.parameters()])
        if shapes not in known:
            known[shapes] = reach(model, 160 if listed == WHOLE else 2 * int(listed) + 48)
        assert listed == str(known[shapes] or WHOLE), name


def test_an_overlap_of_the_reach_makes_tiles_of_window_attention_exact() -> None:
    model = SwinIR([2, 2], 12, 2, "pixelshuffledirect", scale=2).eval()
    distance = reach(copy.deepcopy(model), 160)
    assert distance is not None
    lr = torch.rand(1, 3, 40, 203)
    with torch.no_grad():
        whole = model(lr)
        tiled = upscale_tiled(model, lr, 2, 2 * distance + 30, distance, 8)
        moved = upscale_tiled(model, lr, 2, 2 * distance + 30, distance, 1)
    assert (whole - tiled).abs().max() < 1e-5
    assert (whole - moved).abs().max() > 1e-4

"""DAT against the published network, and what of it can be removed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.parity import fill, official, worst
from helpers.spandrel import spandrel
from torch import nn

from drc.core.errors import UsageError
from drc.graph.inputs import example_input
from drc.graph.trace import trace
from drc.graph.verify import compare
from drc.networks.dual import ChainDual
from drc.networks.registry import build, schema
from drc.networks.traits import get_traits
from drc.networks.zoo.dat import DAT

__all__ = ["spandrel"]  # a fixture


def _small(**changes: object) -> DAT:
    """Two groups, so that both ways to choose the shifted blocks occur."""
    arguments = {
        "depth": [3, 2],
        "embed_dim": 32,
        "num_heads": 4,
        "expansion_factor": 2,
        "split_size": (2, 4),
        "scale": 2,
        "img_size": 16,
    }
    return DAT(**{**arguments, **changes}).eval()  # type: ignore[arg-type]


def test_dat_and_its_dual_model_give_the_official_outputs(shared: Path) -> None:
    facts, arrays = official(shared, "dat_x4")
    model = build("dat", facts["upscale"])
    parts = nn.ModuleDict({"dual_model": ChainDual(4)})
    assert get_traits(model).value_range == facts["img_range"]
    fill(shared, model)
    fill(shared, parts)
    with torch.no_grad():
        sr = model(arrays["x"])
        assert worst([sr, *parts["dual_model"](sr)], arrays) < 1e-5
    states = model.state_dict(), parts.state_dict()
    ours = [(key, list(value.shape)) for state in states for key, value in state.items()]
    assert ours == [(key, shape) for key, shape, _, _ in facts["state_dict"]]
    both = (*model.parameters(), *parts.parameters())
    assert sum(p.numel() for p in both) == facts["parameters"] == 14_805_219


@pytest.mark.parametrize("scale", [2, 3])
def test_scales_differ_in_the_upsampler_alone(scale: int) -> None:
    one, other = schema("dat", scale), schema("dat", 4)
    changed = {key for key in one | other if one.get(key) != other.get(key)}
    assert changed and all(key.startswith("upsample.") for key in changed)


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (21, 13), (3, 5)])
def test_any_image_gives_what_another_implementation_gives(spandrel, size: tuple[int, int]) -> None:
    other = spandrel.architectures.DAT.DAT(
        img_size=16,
        embed_dim=32,
        split_size=[2, 4],
        depth=[3, 2],
        num_heads=[4, 4],
        expansion_factor=2,
        upscale=2,
    ).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model = _small()
    state = other.state_dict()
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)
    lr = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected = other(lr)
        assert model(lr).shape == (2, 3, 2 * size[0], 2 * size[1])
        assert torch.allclose(model(lr), expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 5}, "this network upsamples by 2, 3, 4 or 8, not by 5"),
        ({"num_heads": 3}, "DAT cannot divide 32 channels among 3 heads"),
        ({"embed_dim": 16}, "DAT cannot divide 16 channels among 4 heads; use an even number"),
        ({"split_size": (2, 5)}, "windows of 2x5 do not fill an image of 16x16"),
    ],
)
def test_unusable_constructor_values_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _small(**changes)


def test_inner_widths_of_every_block_can_be_removed() -> None:
    model = _small()
    graph = trace(model)
    sizes = {group.name: (group.size, group.blocks) for group in graph.groups}
    for group, depth in enumerate((3, 2)):
        for block in range(depth):
            name = f"layers.{group}.blocks.{block}"
            assert sizes[f"{name}.ffn.fc1"] == (32, 1)
            # Of channel attention, a head's queries are counted with its values.
            assert sizes[f"{name}.attn.qkv"] == (8, 4 if block % 2 else 8)
    keep = {
        group.name: [
            sorted(torch.randperm(group.size)[: 1 + group.size // 2].tolist())
            for _ in range(group.blocks)
        ]
        for group in graph.groups
        if group.size > 2
    }
    assert compare(model, graph, keep, example_input(model)) < 1e-5

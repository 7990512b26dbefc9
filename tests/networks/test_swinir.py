"""SwinIR, dense and compressed, against the published networks, and what of it can be removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.parity import fill, official, worst
from helpers.spandrel import spandrel
from torch import nn

import drc
from drc.core.errors import ModelError, UsageError
from drc.evaluation.complexity import complexity
from drc.graph.groups import ChannelGraph
from drc.graph.inputs import example_input
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.graph.verify import compare
from drc.networks.checkpoints import shapes
from drc.networks.dual import ChainDual
from drc.networks.registry import build, get_preset, published_widths, schema
from drc.networks.traits import get_traits
from drc.networks.zoo.swinir import SwinIR

__all__ = ["spandrel"]  # a fixture

# arXiv 2207.07929, less the 3,168 parameters of the dual model, which it counts in for `swinir`.
PARAMETERS = {"swinir": 11_900_199, "swinir_light": 929_628, "swinir_light_drc": 631_632}
MACS_G = {"swinir_light": 9.95, "swinir_light_drc": 6.84}
WIDE = {"embed_dim": 18, "num_heads": 3, "upsampler": "pixelshuffledirect"}
SPECS = [("swinir_light_x4", "swinir_light"), ("swinir_light_drc_x4", "swinir_light_drc")]


def _small(**changes: object) -> SwinIR:
    """Two blocks, one of them shifted."""
    arguments = {"depths": [2], "embed_dim": 12, "num_heads": 2, "scale": 2, "img_size": 16}
    return SwinIR(**{**arguments, **changes}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("spec", "name"), SPECS)
def test_swinir_gives_the_official_outputs(shared: Path, spec: str, name: str) -> None:
    facts, arrays = official(shared, spec)
    model = drc.create_model(name, scale=facts["upscale"])
    assert get_traits(model).value_range == facts["img_range"]
    fill(shared, model)
    with torch.no_grad():
        assert worst([model(arrays["x"])], arrays) < 1e-5


def test_the_dual_model_gives_back_the_official_lr_image(shared: Path) -> None:
    facts, arrays = official(shared, "swinir_light_drc_dual_x4")
    parts = nn.ModuleDict({"dual_model": ChainDual(4)})
    model = build("swinir_light_drc")
    fill(shared, parts)
    fill(shared, model)
    with torch.no_grad():
        sr = model(arrays["x"])
        assert worst([sr, *parts["dual_model"](sr)], arrays) < 1e-5
    states = model.state_dict(), parts.state_dict()
    ours = [(key, list(value.shape)) for state in states for key, value in state.items()]
    assert ours == [(key, shape) for key, shape, _, _ in facts["state_dict"]]
    both = (*model.parameters(), *parts.parameters())
    assert sum(p.numel() for p in both) == facts["parameters"] == 634_800


@pytest.mark.parametrize(("spec", "name"), SPECS)
def test_names_and_shapes_are_the_official_ones_in_order(
    shared: Path, spec: str, name: str
) -> None:
    facts, _ = official(shared, spec)
    expected = [(key, tuple(shape)) for key, shape, _, _ in facts["state_dict"]]
    assert list(schema(name, 4).items()) == expected


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = build(name, 4)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", MACS_G)
def test_macs_are_the_published_ones(name: str) -> None:
    macs = complexity(
        build(name), (32, 32)
    ).macs  # they are published for 96x96: nine times as many
    assert 9 * macs / 1e9 == pytest.approx(MACS_G[name], rel=0.002)


def test_published_widths_are_the_reference_list(shared: Path) -> None:
    lists = json.loads((shared / "spec" / "widths.json").read_text("utf-8"))
    widths = published_widths("swinir_light_drc_x4")
    assert widths == lists["swinir_light_drc_x4"]
    assert shapes(build("swinir_light", 4, widths)) == schema("swinir_light_drc", 4)


@pytest.mark.parametrize(("name", "scale"), [("swinir", 2), ("swinir", 3), ("swinir", 8)])
def test_scales_differ_in_the_upsampler_alone(name: str, scale: int) -> None:
    one, other = schema(name, scale), schema(name, 4)
    changed = {key for key in one | other if one.get(key) != other.get(key)}
    assert changed and all(key.startswith("upsample.") for key in changed)


def test_every_published_scale_has_its_file() -> None:
    for name in ("swinir", "swinir_light"):
        preset = get_preset(name)
        assert preset.weights.keys() == preset.arguments.keys()
        for scale, file in preset.weights.items():
            assert file.filename.endswith(f"_x{scale}.pth")
    assert not get_preset("swinir_light_drc").weights


@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect"])
@pytest.mark.parametrize("size", [(64, 64), (16, 16), (21, 13), (5, 40)])
def test_any_image_gives_what_another_implementation_gives(
    spandrel, upsampler: str, size: tuple[int, int]
) -> None:
    other = spandrel.architectures.SwinIR.SwinIR(
        embed_dim=12,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=8,
        mlp_ratio=2,
        upscale=3,
        upsampler=upsampler,
    ).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model = _small(depths=[2, 2], upsampler=upsampler, scale=3, img_size=64)
    state = other.state_dict()
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)
    lr = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected = other(lr)
        assert model(lr).shape == (2, 3, 3 * size[0], 3 * size[1])
        assert torch.allclose(model(lr), expected, atol=1e-5 * float(expected.abs().max()))


def test_stored_masks_are_those_made_for_other_sizes() -> None:
    model, lr = _small(), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        stored = model(lr)
        model.img_size = 64  # so that none is stored for this size
        assert torch.equal(model(lr), stored)
        for block in model.layers[0].residual_group.blocks:
            block.attn_mask = None
        assert torch.equal(model(lr), stored)


def test_images_of_other_number_types() -> None:
    model = _small().double()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 10, 8).double()).dtype == torch.float64


@pytest.mark.parametrize("size", [(4, 16), (16, 3)])
def test_an_image_smaller_than_half_a_window_is_refused(size: tuple[int, int]) -> None:
    message = f"{size[0]}x{size[1]} pixels is too small for windows of 8; its sides must have more"
    with pytest.raises(ModelError, match=message):
        _small()(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([12, 24, 12], "this network takes 4 widths, got 3"),
        ([12, 24, 12, 25], "width 3 is 25; this layer takes 1 to 24"),
        ([12, 24, 14, 24], "width 2 is 14; this layer takes 1 to 12"),
        ([12, 24, 7, 24], "width 2 is 7; it is shared by 2 heads, so give a multiple of 2"),
    ],
)
def test_unusable_widths_are_refused(widths: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _small(widths=widths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upsampler": "nearest"}, "SwinIR has no upsampler 'nearest'; use pixelshuffle or"),
        ({"scale": 5}, "this network upsamples by 2, 3, 4 or 8, not by 5"),
        ({"scale": 1, "upsampler": "pixelshuffledirect"}, "by 2 or more, not by 1"),
        ({"num_heads": 5}, "12 channels cannot be divided among 5 heads"),
        ({"window_size": 7}, "windows of 7x7 do not fill an image of 16x16"),
        ({"img_size": 20}, "windows of 8x8 do not fill an image of 20x20"),
    ],
)
def test_unusable_constructor_values_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _small(**changes)


def test_widths_of_attention_and_mlp_are_taken_in_turn() -> None:
    model = _small(widths=[4, 5, 6, 7])
    first, second = model.layers[0].residual_group.blocks
    assert first.attn.qkv.weight.shape == (12, 12) and first.mlp.fc1.weight.shape == (5, 12)
    assert second.attn.proj.weight.shape == (12, 6) and second.mlp.fc2.weight.shape == (12, 7)
    assert first.attn.scale == _small().layers[0].residual_group.blocks[0].attn.scale
    with torch.no_grad():
        assert model(torch.rand(1, 3, 9, 8)).shape == (1, 3, 18, 16)


@pytest.fixture(scope="module")
def traced() -> tuple[SwinIR, ChannelGraph]:
    model = _small(depths=[2, 1], **WIDE)
    return model, trace(model)


def test_inner_widths_of_every_block_can_be_removed(
    traced: tuple[SwinIR, ChannelGraph],
) -> None:
    _, graph = traced
    sizes = {group.name: (group.size, group.blocks) for group in graph.groups}
    for layer, depth in enumerate((2, 1)):
        for block in range(depth):
            name = f"layers.{layer}.residual_group.blocks.{block}"
            assert sizes[f"{name}.mlp.fc1"] == (36, 1)
            assert sizes[f"{name}.attn.qkv"] == (6, 6)  # heads, and values or others


def test_cutting_random_inner_widths_equals_masking_them(
    traced: tuple[SwinIR, ChannelGraph],
) -> None:
    model, graph = traced
    keep = {}
    for number, group in enumerate(graph.groups):
        width = 1 + number % (group.size - 1)
        keep[group.name] = [
            sorted(torch.randperm(group.size)[:width].tolist()) for _ in range(group.blocks)
        ]
    inner = {name: rows for name, rows in keep.items() if ".blocks." in name}
    for chosen in (keep, inner):
        assert compare(model, graph, chosen, example_input(model)) < 1e-5


def test_a_cut_network_is_one_with_widths(traced: tuple[SwinIR, ChannelGraph]) -> None:
    model, graph = traced
    inner = [group for group in graph.groups if ".blocks." in group.name]
    small = cut(model, graph, {group.name: range(1, group.size, 2) for group in inner})
    half = _small(depths=[2, 1], **WIDE, widths=[9, 18] * 3)
    half.load_state_dict(small.state_dict())
    lr = torch.rand(1, 3, 13, 21)
    with torch.no_grad():
        assert torch.allclose(half(lr), small(lr), atol=1e-6)

"""DRN and its dual model against the published networks: outputs, names, shapes, sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.parity import fill, official, worst
from torch import nn

import drc
from drc.core.errors import UsageError
from drc.networks import registry
from drc.networks.checkpoints import shapes
from drc.networks.dual import DownStep, DualModel
from drc.networks.registry import Preset, build, get_preset, register, schema
from drc.networks.traits import get_traits
from drc.networks.zoo.layers import RGB_MEAN

# Published parameter counts: arXiv 2207.07929 and the files of the two releases.
PARAMETERS = {
    ("drn_s", 4): 4_804_065,
    ("drn_l", 4): 9_825_893,
    ("drn_s30", 4): 3_116_637,
    ("drn_s50", 4): 2_267_417,
    ("drn_s70", 4): 1_427_545,
    ("drn_s", 8): 5_403_000,
    ("drn_l", 8): 10_004_018,
    ("drn_s30", 8): 3_490_832,
    ("drn_s50", 8): 2_548_420,
    ("drn_s70", 8): 1_572_288,
}


@pytest.mark.parametrize(("spec", "name"), [("drn_s_x4", "drn_s"), ("drn_s30_x4", "drn_s30")])
def test_drn_gives_the_official_outputs(shared: Path, spec: str, name: str) -> None:
    facts, arrays = official(shared, spec)
    model = drc.create_model(name, scale=facts["scale"])
    assert get_traits(model).value_range == facts["rgb_range"]
    fill(shared, model)
    with torch.no_grad():
        assert worst(model(arrays["x"]), arrays) < 1e-5


def test_a_dual_step_gives_the_official_outputs(shared: Path) -> None:
    facts, arrays = official(shared, "drn_dual_x2")
    step = DownStep(3, facts["n_feats"], 3)
    fill(shared, step)
    with torch.no_grad():
        assert worst([step(arrays["x"])], arrays) < 1e-5


@pytest.mark.parametrize(("spec", "name"), [("drn_s_x4", "drn_s"), ("drn_s30_x4", "drn_s30")])
def test_names_and_shapes_are_the_official_ones_in_order(
    shared: Path, spec: str, name: str
) -> None:
    facts, _ = official(shared, spec)
    expected = [(key, tuple(shape)) for key, shape, _, _ in facts["state_dict"]]
    assert list(schema(name, facts["scale"]).items()) == expected


def test_dual_steps_have_the_official_names(shared: Path) -> None:
    facts, _ = official(shared, "drn_dual_x2")
    expected = [(key, tuple(shape)) for key, shape, _, _ in facts["state_dict"]]
    for step in DualModel(4).steps:
        assert [(k, tuple(v.shape)) for k, v in step.state_dict().items()] == expected


def test_published_widths_are_the_reference_lists(shared: Path) -> None:
    lists = json.loads((shared / "spec" / "widths.json").read_text("utf-8"))
    for percent in (30, 50, 70):
        for scale in (4, 8):
            name = f"drn_s{percent}"
            expected = lists[f"{name}_x{scale}"]
            assert get_preset(name).arguments[scale]["widths"] == expected


@pytest.mark.parametrize(("name", "scale"), PARAMETERS)
def test_parameter_counts_are_the_published_ones(name: str, scale: int) -> None:
    with torch.device("meta"):
        model = build(name, scale)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name, scale]
    traits = get_traits(model)
    assert (traits.scale, traits.preset, traits.value_range) == (scale, name, 255.0)


def test_a_widths_list_builds_the_compressed_form() -> None:
    widths = get_preset("drn_s30").arguments[4]["widths"]
    assert shapes(build("drn_s", 4, widths)) == schema("drn_s30", 4)
    model = drc.create_model("drn_tiny", widths=[4] * 20)
    assert get_traits(model).widths == (4,) * 20
    with torch.no_grad():
        outputs = model(torch.rand(1, 3, 6, 7) * 255)
    assert [tuple(y.shape[-2:]) for y in outputs] == [(6, 7), (12, 14), (24, 28)]


def test_an_untrained_network_still_shifts_by_the_mean() -> None:
    model = drc.create_model("drn_tiny")
    for parameter in model.tail.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        sr = model(torch.zeros(1, 3, 4, 4))[-1]
    assert torch.allclose(sr[0, :, 0, 0], 255 * torch.tensor(RGB_MEAN))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {f"{m}.{p}" for m in ("sub_mean", "add_mean") for p in ("weight", "bias")}


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([4] * 19, "this network takes 20 widths, got 19"),
        ([], "this network takes 20 widths, got 0"),
        ([4] * 19 + [33], "width 19 is 33; this layer takes 1 to"),
        ([0] + [4] * 19, "width 0 is 0; this layer takes 1 to 8"),
    ],
)
def test_unusable_widths_are_refused(widths: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        drc.create_model("drn_tiny", widths=widths)


def test_widths_of_a_network_that_takes_none_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_PRESETS", {n: get_preset(n) for n in drc.list_models()})

    def bicubic(scale: int) -> nn.Module:
        return nn.Upsample(scale_factor=scale, mode="bicubic")

    register(Preset("test_no_widths", bicubic, {2: {}}, 1.0))
    with pytest.raises(UsageError, match="test_no_widths takes no widths"):
        build("test_no_widths", 2, widths=[1])


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("drn_x", 4, "no network is called 'drn_x'; did you mean drn_"),
        ("unet", 4, "no network is called 'unet'; known: dat, dcls, "),
        ("drn_s", 3, "drn_s has no scale x3; it exists for x4, x8"),
        ("drn_tiny", 8, "drn_tiny has no scale x8; it exists for x4"),
    ],
)
def test_unknown_names_and_scales_are_refused(name: str, scale: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        drc.create_model(name, scale)


def test_every_registered_network_has_a_schema_without_random_draws() -> None:
    before = torch.get_rng_state()
    for name in drc.list_models():
        for scale in get_preset(name).arguments:
            schema(name, scale)
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_seeds_build_equal_networks() -> None:
    first, second = (torch.manual_seed(3) and drc.create_model("drn_tiny") for _ in range(2))
    assert not first.training
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scale", [2, 3, 4, 6, 8])
def test_a_dual_model_maps_sr_back_to_lr(scale: int) -> None:
    dual = DualModel(scale)
    assert [tuple(y.shape) for y in dual(torch.rand(2, 3, 5 * scale, 4 * scale))] == [(2, 3, 5, 4)]


def test_a_dual_model_answers_a_pyramid_level_by_level() -> None:
    pyramid = [torch.rand(1, 3, 4 * 2**level, 4 * 2**level) for level in range(3)]
    dual = DualModel(4)
    images = dual(pyramid)
    assert [tuple(y.shape[-2:]) for y in images] == [(4, 4), (8, 8)]
    assert torch.equal(images[1], dual.steps[1](pyramid[2]))


def test_a_dual_model_of_another_scale_is_refused() -> None:
    with pytest.raises(UsageError, match="twos and threes, not 5"):
        DualModel(5)

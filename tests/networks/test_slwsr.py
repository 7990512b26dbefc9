"""s-LWSR against the published network and the paper's figures, and its own compression."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers.cutting import random_keep
from helpers.parity import fill, official, worst
from torch import nn

import drc
from drc.core.errors import UsageError
from drc.evaluation.complexity import complexity
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.graph.verify import compare
from drc.networks.registry import build, schema
from drc.networks.traits import get_traits
from drc.networks.zoo.slwsr import BLOCKS, SLWSR

PAPER_PARAMETERS = {"slwsr16": 143_755, "slwsr32": 571_131, "slwsr64": 2_276_827}
PAPER_MULTI_ADDS_G = {"slwsr16": 8.3, "slwsr32": 32.9, "slwsr64": 131.1}
OUR_MULTI_ADDS_G = {"slwsr16": 10.19, "slwsr32": 39.90, "slwsr64": 157.89}
LR_PIXELS = 320 * 180  # of HR 1280x720 at x4


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_it_gives_the_official_outputs(shared: Path) -> None:
    facts, arrays = official(shared, "slwsr32_x4")
    model = drc.create_model("slwsr32", scale=facts["scale"])
    assert get_traits(model).value_range == facts["rgb_range"]
    fill(shared, model)
    with torch.no_grad():
        assert worst([model(arrays["x"])], arrays) < 1e-5


def test_names_and_shapes_are_the_official_ones_in_order(shared: Path) -> None:
    facts, _ = official(shared, "slwsr32_x4")
    expected = [(key, tuple(shape)) for key, shape, _, _ in facts["state_dict"]]
    assert list(schema("slwsr32", 4).items()) == expected


@pytest.mark.parametrize("name", PAPER_PARAMETERS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        assert _count(build(name, 4)) == PAPER_PARAMETERS[name]


@pytest.mark.parametrize("name", PAPER_PARAMETERS)
def test_multi_adds_at_hr_720p_and_how_the_paper_got_fewer(name: str) -> None:
    # All layers are convolutions, so a hundredth of the image costs a hundredth.
    measured = 100 * complexity(build(name, 4), (18, 32)).macs / 1e9
    assert measured == pytest.approx(OUR_MULTI_ADDS_G[name], abs=0.005)
    # The paper's figure is every parameter, once per LR pixel: the layers behind a PixelShuffle
    # run on 4 and 16 times as many pixels, which it leaves out.
    by_parameters = PAPER_PARAMETERS[name] * LR_PIXELS / 1e9
    assert by_parameters == pytest.approx(PAPER_MULTI_ADDS_G[name], abs=0.1)


def test_all_blocks_inverted_are_the_124k_of_the_paper() -> None:
    with torch.device("meta"):
        compressed = SLWSR(32, inverted=True)
        assert _count(compressed) == 124_347
        one = SLWSR(32, inverted=["feat3_2"])
        assert PAPER_PARAMETERS["slwsr32"] - _count(one) == 18_496 - 1_312
        wider = SLWSR(32, inverted=True, expansion=2)
        assert _count(wider) - _count(compressed) == 26 * (3 * 32 * 32 + 9 * 32)
    assert [tuple(p.shape) for p in compressed.feat2_1.parameters()] == [
        (32, 1, 3, 3),
        (32, 32, 1, 1),
    ]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_the_activations_is_removed_evenly(share: float) -> None:
    model = SLWSR(8, activations_removed=share)
    active = [
        any(isinstance(part, nn.ReLU) for part in model.get_submodule(name).modules())
        for name in BLOCKS
    ]
    assert active.count(False) == round(share * 26)
    gaps = [index for index, there in enumerate(active) if not there]
    distances = {later - earlier for earlier, later in pairwise(gaps)}
    assert len(distances) <= 2
    assert list(model.state_dict()) == list(SLWSR(8).state_dict())


def test_the_last_convolution_of_a_block_is_all_that_a_removed_activation_leaves() -> None:
    for inverted in (False, True):
        branch = SLWSR(8, inverted=inverted, activations_removed=1).get_submodule("feat2_1.body")
        x, y = torch.rand(2, 1, 8, 5, 5)
        biased = branch(torch.zeros_like(x))
        with torch.no_grad():
            assert torch.allclose(branch(x + y), branch(x) + branch(y) - biased, atol=1e-6)


def test_without_the_pool_the_skips_are_as_they_are() -> None:
    with_pool, without = SLWSR(8, scale=2), SLWSR(8, scale=2, pool=False)
    assert _count(with_pool) - _count(without) == 6 * 8 * 8
    weights = with_pool.state_dict()
    del weights["conv1.weight"]
    without.load_state_dict(weights)
    image = torch.rand(1, 3, 7, 6) * 255
    with torch.no_grad():
        with_pool.conv1.weight.zero_()  # half a skip is left of each, so halve what reads them
        for stage in (7, 8, 9, 10):
            without.get_submodule(f"feat{stage}_1.conv").weight[:, 8:] *= 0.5
        assert torch.allclose(with_pool(image), without(image), atol=1e-4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_any_size_of_image_goes_through(scale: int) -> None:
    model = SLWSR(4, scale, inverted=BLOCKS[::3], expansion=2, activations_removed=0.3)
    with torch.no_grad():
        assert model(torch.rand(2, 3, 5, 1) * 255).shape == (2, 3, 5 * scale, scale)


def test_the_inside_of_every_block_can_be_cut() -> None:
    model = build("slwsr16", 2)
    graph = trace(model)
    inside = {f"{name}.body.0" for name in BLOCKS}
    assert inside <= {group.name for group in graph.groups}
    assert {graph[name].size for name in inside} == {16}
    _assert_cut_is_masked(model)


@pytest.mark.parametrize("pool", [True, False])
def test_a_compressed_form_can_be_cut_again(pool: bool) -> None:
    mixed = SLWSR(8, 2, inverted=BLOCKS[::2], expansion=2, activations_removed=0.4, pool=pool)
    graph = _assert_cut_is_masked(mixed.eval())
    names = {group.name for group in graph.groups}
    assert {f"{name}.body.0" for name in BLOCKS} <= names  # plain: inner width; inverted: expanded
    _assert_cut_is_masked(SLWSR(8, 2, inverted=True, pool=pool).eval())


def _assert_cut_is_masked(model: nn.Module):
    graph = trace(model)
    keep = random_keep(graph)
    image = torch.rand(1, 3, 9, 7) * 255
    assert compare(model, graph, keep, image) < 1e-5 * 255
    small = cut(model, graph, keep)
    assert _count(small) < _count(model)
    return graph


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inverted": ["feat2_4"]}, "s-LWSR has no block 'feat2_4'; its blocks are feat2_1, "),
        ({"inverted": "conv1"}, "s-LWSR has no block 'conv1'"),
        ({"expansion": 0}, "expansion is 0; an inverted block takes 1 or more"),
        ({"activations_removed": 1.5}, "activations_removed is 1.5; it is a share from 0 to 1"),
        ({"scale": 5}, "this network upsamples by 2, 3, 4 or 8, not by 5"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        SLWSR(4, **options)
    assert "\n" not in str(caught.value)

"""EDSR, RCAN, RRDB and IMDN: official names, sizes and outputs, and that they can be cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.cutting import random_keep
from helpers.parity import fill
from helpers.spandrel import spandrel
from torch import Tensor, nn

import drc
from drc.core.errors import UsageError
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.graph.verify import compare
from drc.networks.checkpoints import shapes
from drc.networks.registry import build, get_preset, schema
from drc.networks.traits import get_traits
from drc.networks.zoo.edsr import EDSR
from drc.networks.zoo.imdn import IMDN, ContrastAttention
from drc.networks.zoo.layers import HeadBodyTail
from drc.networks.zoo.rcan import RCAN
from drc.networks.zoo.rrdb import RRDBNet

__all__ = ["spandrel"]  # a fixture

# Without the 24 fixed numbers of the two mean shifts.
PARAMETERS = {
    ("edsr_baseline", 2): 1_369_859,
    ("edsr_baseline", 3): 1_554_499,
    ("edsr_baseline", 4): 1_517_571,
    ("edsr", 4): 43_089_923,
    ("rcan", 4): 15_592_355,
    ("rrdb", 4): 16_697_987,
    ("imdn", 2): 694_404,
    ("imdn", 3): 703_059,
    ("imdn", 4): 715_176,
}
# In millions, as their papers round them; RCAN's as its authors gave them.
ROUNDED = {
    ("edsr_baseline", 2): 1.37,
    ("edsr", 4): 43.1,
    ("rcan", 2): 15.44,
    ("rcan", 3): 15.63,
    ("rcan", 4): 15.59,
    ("imdn", 2): 0.694,
    ("imdn", 3): 0.703,
    ("imdn", 4): 0.715,
}
SMALL: dict[str, Callable[[], nn.Module]] = {
    "edsr": lambda: EDSR(2, 8, scale=3, res_scale=0.1),
    "rcan": lambda: RCAN(2, 2, 8, reduction=2, scale=2),
    "rrdb": lambda: RRDBNet(8, 1, growth=6),
    "imdn": lambda: IMDN(16, 2, scale=2),
}
INSIDE = {
    "edsr": [f"body.{block}.body.0" for block in (0, 1)],
    "rcan": [
        f"body.{group}.body.{block}.body.{layer}"
        for group in (0, 1)
        for block in (0, 1)
        for layer in ("0", "3.conv_du.0")
    ],
    "rrdb": [f"body.0.rdb{block}.conv{layer}" for block in (1, 2, 3) for layer in (1, 2, 3, 4)],
    "imdn": [f"IMDB{block}.c{layer}" for block in (1, 2) for layer in (1, 2, 3, 4)],
}


def _trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "scale"), PARAMETERS)
def test_parameter_counts_are_the_official_ones(name: str, scale: int) -> None:
    with torch.device("meta"):
        model = build(name, scale)
    assert _trainable(model) == PARAMETERS[name, scale]
    fixed = 24 if isinstance(model, HeadBodyTail) else 0
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name, scale] + fixed
    traits = get_traits(model)
    assert (traits.scale, traits.preset) == (scale, name)
    assert traits.value_range == model.value_range == (255.0 if fixed else 1.0)


@pytest.mark.parametrize(("name", "scale"), ROUNDED)
def test_parameter_counts_round_to_the_published_ones(name: str, scale: int) -> None:
    with torch.device("meta"):
        millions = _trainable(build(name, scale)) / 1e6
    digits = len(str(ROUNDED[name, scale]).split(".")[1])
    assert abs(millions - ROUNDED[name, scale]) <= 10**-digits


def _layers(*names: str) -> list[str]:
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def test_edsr_has_the_official_names() -> None:
    blocks = [f"body.{block}.body.{layer}" for block in range(16) for layer in (0, 2)]
    shifts = ("sub_mean", "add_mean")
    for scale, shuffles in ((2, ["tail.0.0"]), (3, ["tail.0.0"]), (4, ["tail.0.0", "tail.0.2"])):
        expected = _layers(*shifts, "head.0", *blocks, "body.16", *shuffles, "tail.1")
        assert list(schema("edsr_baseline", scale)) == expected
    wide = schema("edsr", 2)
    assert wide["body.31.body.2.weight"] == (256, 256, 3, 3)
    assert wide["tail.0.0.weight"] == (1024, 256, 3, 3)


def test_imdn_has_the_official_names() -> None:
    parts = ("c1", "c2", "c3", "c4", "c5", "cca.conv_du.0", "cca.conv_du.2")
    blocks = [f"IMDB{block}.{part}" for block in range(1, 7) for part in parts]
    names = schema("imdn", 3)
    assert list(names) == _layers("fea_conv", *blocks, "c.0", "LR_conv", "upsampler.0")
    sizes = [names[f"IMDB4.{part}.weight"][:2] for part in parts]
    assert sizes == [(64, 64), (64, 48), (64, 48), (16, 48), (64, 64), (4, 64), (64, 4)]
    assert names["c.0.weight"] == (64, 384, 1, 1)
    assert names["upsampler.0.weight"] == (27, 64, 3, 3)


def test_rcan_is_the_network_that_spandrel_has(spandrel: ModuleType) -> None:
    official = spandrel.architectures.RCAN.RCAN
    assert shapes(official(scale=4)) == schema("rcan", 4)
    for scale in (2, 3, 4, 8):
        ours = RCAN(2, 2, 16, reduction=4, scale=scale).eval()
        theirs = official(scale=scale, n_resgroups=2, n_resblocks=2, n_feats=16, reduction=4)
        theirs.load_state_dict(ours.state_dict())
        image = torch.rand(1, 3, 7, 9)
        with torch.no_grad():
            assert _apart(ours(image * 255) / 255, theirs(image.clone())) < 1e-5


def test_rrdb_is_the_network_that_spandrel_makes_of_its_weights(spandrel: ModuleType) -> None:
    ours = RRDBNet(16, 2, growth=32).eval()
    found = spandrel.ModelLoader().load_from_state_dict(dict(ours.state_dict()))
    assert found.architecture.id == "ESRGAN"
    image = torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        assert _apart(ours(image), found.model(image)) < 1e-5


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, as a fraction of the output's range."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / (theirs.max() - theirs.min()))


# Mean, standard deviation and one value of what the official definitions, written out apart from
# ours with formula weights, give for the picture below.
OFFICIAL = {
    "edsr x3": (lambda: EDSR(2, 8, 3, 0.1), 255, (110.007542, 12.932484, 93.776917)),
    "edsr x4": (lambda: EDSR(3, 8, 4, 1.0), 255, (109.840315, 6.348932, 115.03447)),
    "imdn x2": (lambda: IMDN(16, 6, 2), 1, (-0.054467, 0.118813, 0.0322)),
    "imdn x4": (lambda: IMDN(32, 6, 4), 1, (-0.001171, 0.116739, -0.010866)),
}


@pytest.mark.parametrize("case", OFFICIAL)
def test_outputs_are_those_of_the_official_code(shared: Path, case: str) -> None:
    make, value_range, expected = OFFICIAL[case]
    model = make().eval()
    fill(shared, model)
    picture = (torch.arange(3 * 7 * 9).reshape(1, 3, 7, 9) * 37 % 101).float() / 100
    with torch.no_grad():
        sr = model(picture * value_range).double()
    found = (sr.mean().item(), sr.std().item(), sr[0, 1, 3, 4].item())
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_any_size_of_image_goes_through(name: str) -> None:
    model = SMALL[name]()
    with torch.no_grad():
        for height, width in ((1, 5), (8, 3)):
            sr = model(torch.rand(2, 3, height, width) * model.value_range)
            assert sr.shape == (2, 3, height * model.scale, width * model.scale)


@pytest.mark.parametrize("name", SMALL)
def test_the_inside_of_every_block_can_be_cut(name: str) -> None:
    model = SMALL[name]().eval()
    graph = trace(model)
    assert set(INSIDE[name]) <= {group.name for group in graph.groups}
    keep = random_keep(graph)
    image = torch.rand(1, 3, 9, 7) * model.value_range
    with torch.no_grad():
        assert compare(model, graph, keep, image) < 1e-5 * model(image).abs().max()
    small = cut(model, graph, keep)
    assert _trainable(small) < 0.8 * _trainable(model)
    small.train()(image).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in small.parameters() if p.requires_grad)


def test_contrast_has_a_gradient_where_a_channel_is_constant() -> None:
    image = torch.rand(1, 16, 4, 4)
    image[:, 3] = 0.5
    image.requires_grad_()
    ContrastAttention(16, 4)(image).sum().backward()
    assert image.grad.isfinite().all()


def test_published_weights_are_named() -> None:
    counts = {"edsr_baseline": 3, "edsr": 3, "imdn": 3, "rrdb": 1, "rcan": 0}
    for name, count in counts.items():
        assert len(get_preset(name).weights) == count
        assert name in drc.list_models()
    baseline = get_preset("edsr_baseline").weights[4].filename
    assert baseline == "edsr_baseline_x4-6b446fab.pt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EDSR(1, 8, scale=5), "upsamples by 2, 3, 4 or 8, not by 5"),
        (lambda: RCAN(1, 1, 8), "reduction is 16; for 8 channels use 1 to 8"),
        (lambda: RRDBNet(8, 1, scale=2), "RRDB upsamples by 4, not by 2"),
        (lambda: IMDN(18), "IMDN takes a multiple of 4 channels from 16 on, not 18"),
        (lambda: IMDN(16, scale=0), "IMDN upsamples by 1 or more, not by 0"),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()

"""Checkpoints of registered networks are recognised by names and shapes, compressed ones too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import drc
from drc.core.errors import WeightsError
from drc.networks.dual import ChainDual
from drc.networks.registry import get_preset, list_models, schema
from drc.networks.traits import get_traits
from drc.opening import open_network

NAMES = ["drn_s30", "swinir_light", "swinir_light_drc", "dcls_drc", "slwsr16", "imdn"]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_says_which_network_it_is_of(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = drc.create_model(name)
    state = model.state_dict()
    if get_preset(name).dual is ChainDual:
        state.update({f"dual_model.{key}": x for key, x in ChainDual(4).state_dict().items()})
    torch.save({"params_ema": state, "iteration": 5}, tmp_path / "net_g_latest.pth")
    found = open_network(None, str(tmp_path / "net_g_latest.pth"))
    assert (get_traits(found).preset, get_traits(found).scale) == (name, 4)
    image = torch.rand(1, 3, 9, 11) * get_traits(model).value_range
    with torch.no_grad():
        ours, theirs = found(image), model(image)
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, list) else [(ours, theirs)]
    assert all(torch.equal(x, y) for x, y in pairs)


def test_no_two_registered_networks_look_alike() -> None:
    seen: dict[tuple, str] = {}
    for name in list_models():
        for scale in get_preset(name).arguments:
            key = tuple(schema(name, scale).items())
            assert key not in seen, f"{name} x{scale} is {seen.get(key)}"
            seen[key] = f"{name} x{scale}"


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("swinir_light", ("swinir_light", 2), "it is swinir_light x2"),
        ("dcls", ("dcls_drc", 4), "it is dcls_drc x4"),
        ("edsr_baseline", ("rcan", 4), "it is rcan x4"),
        ("imdn", ("drn_tiny", 4), "it is drn_tiny x4"),
    ],
)
def test_the_checkpoint_of_another_network_is_named(
    tmp_path: Path, name: str, source: tuple[str, int], words: str
) -> None:
    torch.save(drc.create_model(*source).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=words) as caught:
        drc.create_model(name, weights=tmp_path / "other.pth")
    assert "\n" not in str(caught.value)

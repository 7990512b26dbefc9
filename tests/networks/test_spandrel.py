"""Networks that spandrel recognises: opened, adapted to any image, saved and built again."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.spandrel import saved_weights, small_network, spandrel, with_spandrel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import drc
from drc.core.errors import ModelError, UsageError, WeightsError
from drc.graph.surgery import cut, get_cut
from drc.graph.trace import trace
from drc.networks.blueprint import Blueprint
from drc.networks.traits import get_traits
from drc.opening import open_network
from drc.store.networks import METADATA_KEY, read_header

__all__ = ["spandrel", "with_spandrel"]  # fixtures

pytestmark = pytest.mark.usefixtures("spandrel")

KINDS = ("Compact", "SAFMN", "RCAN", "DRUNet", "SwinIR", "grey")


def _opened(kind: str, folder: Path) -> nn.Module:
    return open_network(None, str(saved_weights(kind, folder)))


def _cut_in_half(model: nn.Module) -> nn.Module:
    graph = trace(model)
    assert graph.groups
    keep = {group.name: list(range(0, group.size, 2)) for group in graph.groups}
    return cut(model, graph, keep).eval()


@pytest.mark.parametrize(
    ("kind", "scale", "channels"),
    [
        ("Compact", 2, 3),
        ("SAFMN", 4, 3),
        ("RCAN", 2, 3),
        ("DRUNet", 1, 3),
        ("SwinIR", 2, 3),
        ("grey", 2, 1),
    ],
)
def test_what_the_checkpoint_says_of_the_network(kind, scale, channels, tmp_path) -> None:
    model = _opened(kind, tmp_path)
    traits = get_traits(model)
    assert (traits.scale, traits.channels, traits.value_range) == (scale, channels, 1.0)
    assert traits.preset is None and not model.training
    source = small_network(kind)
    trained, found = ([p.requires_grad for p in net.parameters()] for net in (source, model))
    assert found == trained
    given = source.state_dict()
    assert model.state_dict().keys() == given.keys()
    assert all(torch.equal(value, given[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_any_image_gives_what_spandrel_gives(kind, spandrel, tmp_path) -> None:
    model = _opened(kind, tmp_path)
    traits = get_traits(model)
    for parameter in model.parameters():
        parameter.data.mul_(0.1)  # keeps the images of a random network in the range
    descriptor = spandrel.MAIN_REGISTRY.load(copy.deepcopy(model).state_dict()).eval()
    images = torch.rand(2, traits.channels, 21, 13)
    before = images.clone()
    with torch.no_grad():
        outputs = model(images)
    assert torch.equal(images, before)
    for image, output in zip(images.split(1), outputs.split(1), strict=True):
        expected = descriptor(image.clone())
        torch.testing.assert_close(output.clamp(0, 1), expected, atol=1e-5, rtol=0)


def test_a_copy_runs_on_its_own_weights(tmp_path) -> None:
    model = _opened("SAFMN", tmp_path)
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    image = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert not twin(image).any() and model(image).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_network_reloads_equal(kind, tmp_path) -> None:
    model = _opened(kind, tmp_path)
    image = torch.rand(2, get_traits(model).channels, 19, 24)
    for network in (model, _cut_in_half(model)):
        drc.save(network, tmp_path / "saved.safetensors", {"made_by": "a test"})
        loaded = drc.load(tmp_path / "saved.safetensors")
        with torch.no_grad():
            assert torch.equal(loaded(image), network(image))
        assert get_traits(loaded) == get_traits(model) and get_cut(loaded) == get_cut(network)
        assert type(loaded) is type(model)
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in model.parameters())


def test_a_cut_network_trains_and_is_cut_again(tmp_path) -> None:
    small = _cut_in_half(_opened("Compact", tmp_path)).train()
    small(torch.rand(2, 3, 8, 8)).mean().backward()
    assert all(p.grad is not None for p in small.parameters())
    smaller = _cut_in_half(small.eval())
    drc.save(smaller, tmp_path / "twice.safetensors")
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(drc.load(tmp_path / "twice.safetensors")(image), smaller(image))


def test_the_file_fits_the_class_of_the_architecture(tmp_path) -> None:
    small = _cut_in_half(_opened("Compact", tmp_path))
    drc.save(small, tmp_path / "saved.safetensors")
    made = drc.apply(small_network("Compact"), tmp_path / "saved.safetensors")
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(made(image), small(image))


def test_a_fresh_process_loads_and_runs_it(tmp_path, with_spandrel) -> None:
    small = _cut_in_half(_opened("SAFMN", tmp_path))
    drc.save(small, tmp_path / "saved.safetensors")
    program = (
        "import torch, drc\n"
        "model = drc.load('saved.safetensors')\n"
        "torch.save(model(torch.full((1, 3, 9, 11), 0.5)).detach(), 'output.pt')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env={**with_spandrel}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = small(torch.full((1, 3, 9, 11), 0.5))
    torch.testing.assert_close(torch.load(tmp_path / "output.pt"), expected)


def test_a_real_checkpoint(shared, tmp_path) -> None:
    """CRAFT reads sizes off the values of its position tables, and takes multiples of 16."""
    model = open_network(None, str(shared / "weights" / "craft_x4.pth"))
    assert sum(p.numel() for p in model.parameters()) == 753_344
    assert get_traits(model).scale == 4
    drc.save(model, tmp_path / "craft.safetensors")
    loaded = drc.load(tmp_path / "craft.safetensors")
    image = torch.rand(1, 3, 21, 37)
    with torch.no_grad():
        output = model(image)
        assert output.shape == (1, 3, 84, 148)
        assert torch.equal(loaded(image), output)


def test_the_header_is_names_and_shapes(tmp_path) -> None:
    model = _opened("Compact", tmp_path)
    drc.save(model, tmp_path / "saved.safetensors")
    blueprint = read_header(tmp_path / "saved.safetensors").blueprint
    assert blueprint is not None and blueprint.architecture == "Compact"
    assert blueprint.tensors["body.0.weight"] == ("float32", (16, 3, 3, 3))
    assert blueprint == Blueprint.of("Compact", model.state_dict())


# Refusals -------------------------------------------------------------------------------------


def _line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_checkpoint_of_nothing_known(tmp_path) -> None:
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as error:
        open_network(None, str(tmp_path / "w.pth"))
    assert "recognises (its names begin a.weight); pass --model" in _line(error)


def test_a_checkpoint_that_only_looks_like_an_architecture(tmp_path) -> None:
    state = small_network("SAFMN").state_dict()
    state["feats.0.ccm.ccm.0.weight"] = torch.zeros(1, 2, 3, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"takes .* for SAFMN but cannot load it") as error:
        open_network(None, str(tmp_path / "w.pth"))
    _line(error)


def test_damaged_weights_are_refused(tmp_path) -> None:
    state = small_network("Compact").state_dict()
    state["body.0.weight"][0] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"body\.0\.weight holds NaN"):
        open_network(None, str(tmp_path / "w.pth"))


def test_another_scale_than_the_networks(tmp_path) -> None:
    path = str(saved_weights("Compact", tmp_path))
    assert get_traits(open_network(None, path, 2)).scale == 2
    with pytest.raises(UsageError, match=r"--scale 4 is not .* x2; leave --scale out"):
        open_network(None, path, 4)


def test_a_network_that_adds_colour(tmp_path) -> None:
    with pytest.raises(ModelError, match="SPAN makes 3-channel images of 1-channel ones"):
        _opened("to_rgb", tmp_path)


def test_a_network_changed_outside_drc_is_not_saved(tmp_path) -> None:
    model = _opened("Compact", tmp_path)
    model.body[0] = nn.Conv2d(3, 16, 5, padding=2)
    with pytest.raises(ModelError, match=r"Compact was changed outside drc"):
        drc.save(model, tmp_path / "saved.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "Nothing"}, "knows no Nothing"),
        ({"tensors": {}}, "cannot build its Compact"),
        ({"tensors": {"body.0.weight": ["os", [1]]}}, r"recorded form of body\.0\.weight"),
        ({"tensors": {"body.0.weight": ["float32", [-1]]}}, r"recorded form of body\.0\.weight"),
        ({"code": "import os"}, "damaged header: blueprint.code: unknown key"),
    ],
)
def test_a_wrong_blueprint_is_named(change, message, tmp_path) -> None:
    path = tmp_path / "saved.safetensors"
    drc.save(_opened("Compact", tmp_path), path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    header["blueprint"].update(change)
    save_file(load_file(path), path, {METADATA_KEY: json.dumps(header)})
    with pytest.raises(WeightsError, match=message) as error:
        drc.load(path)
    _line(error)


def _open_elsewhere(folder: Path, preparation: str) -> tuple[str, str]:
    """What opening a checkpoint and a saved network say in a process after `preparation`."""
    drc.save(_opened("Compact", folder), folder / "saved.safetensors")
    program = (
        f"{preparation}\n"
        "from drc.core.errors import WeightsError\n"
        "from drc.opening import open_network\n"
        "for file in ('Compact.pth', 'saved.safetensors'):\n"
        "    try: open_network(None, file)\n"
        "    except WeightsError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    return first, second


def test_without_spandrel_the_extra_is_named(tmp_path) -> None:
    hidden = "import sys; sys.modules['spandrel'] = None"
    opened, loaded = _open_elsewhere(tmp_path, hidden)
    assert "Compact.pth is of no network that drc knows by itself" in opened
    assert "its Compact is built by spandrel" in loaded
    for line in (opened, loaded):
        assert line.endswith("pip install 'drc-sr[spandrel]'")


def test_a_torchvision_of_another_build_is_named(tmp_path) -> None:
    (tmp_path / "torchvision").mkdir()
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "torchvision" / "__init__.py").write_text(broken)
    for line in _open_elsewhere(tmp_path, ""):
        assert "its import fails (operator torchvision::nms does not exist)" in line
        assert f"install torch {torch.__version__} and torchvision" in line

"""Saved networks: equal outputs in a fresh process, no pickles, no surprises from bad files."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import drc
from drc.core.errors import DrcError, ModelError, RunError, WeightsError
from drc.graph.surgery import cut, get_cut
from drc.graph.trace import trace
from drc.networks.dual import DualModel, load_dual
from drc.networks.traits import final_output, get_traits
from drc.store.networks import METADATA_KEY, SCHEMA_VERSION, read_header, save_dual

FOREIGN = '''
import torch
from torch import nn

class Net(nn.Module):
    """A network that drc does not know, with a tied weight, a norm and a buffer."""
    def __init__(self, features=12):
        super().__init__()
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1),
            nn.BatchNorm2d(features),
            nn.PReLU(features),
        )
        self.register_buffer("gain", torch.full((1,), 0.5))
        self.up = nn.Sequential(nn.Conv2d(features, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x):
        x = self.head(x)
        return self.up(x + self.gain * self.body(x))
'''


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "foreign_net.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield importlib.import_module("foreign_net")
    sys.modules.pop("foreign_net")


def _image() -> Tensor:
    return torch.linspace(0, 255, 3 * 6 * 8).reshape(1, 3, 6, 8)


def _digest(model: nn.Module) -> str:
    with torch.no_grad():
        return hashlib.sha256(final_output(model(_image())).numpy().tobytes()).hexdigest()


def _digests_elsewhere(source: str, paths: list[Path]) -> list[str]:
    """The digests of the outputs of the networks that `source` makes in a new process."""
    program = (
        "import hashlib, sys, torch, drc\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "x = torch.linspace(0, 255, 3 * 6 * 8).reshape(1, 3, 6, 8)\n"
        "for path in sys.argv[1:]:\n"
        f"    with torch.no_grad(): y = ({source})(x)\n"
        "    y = y if isinstance(y, torch.Tensor) else y[-1]\n"
        "    print(hashlib.sha256(y.numpy().tobytes()).hexdigest())\n"
    )
    command = [sys.executable, "-c", program, *map(str, paths)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.split()


def _cut(model: nn.Module, share: float = 0.5) -> nn.Module:
    """A real cut: every group keeps a random part of its channels."""
    graph = trace(model, check=False)
    assert graph.groups
    keep = {}
    for group in graph.groups:
        order = torch.randperm(group.size).tolist()
        keep[group.name] = sorted(order[: max(1, round(share * group.size))])
    small = cut(model, graph, keep)
    assert get_cut(small) is not None
    return small.eval()


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# Registered networks --------------------------------------------------------------------------

WIDTHS = [4, 8] + [12] * 18


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A cut network; the tests do not change it."""
    return _cut(drc.create_model("drn_tiny"))


@pytest.fixture
def saved(tmp_path: Path, small: nn.Module) -> Path:
    drc.save(small, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_a_fresh_process_gives_equal_outputs(tmp_path: Path, small: nn.Module) -> None:
    by_widths = drc.create_model("drn_tiny", widths=WIDTHS)
    networks = [drc.create_model("drn_tiny"), by_widths, small, _cut(by_widths)]
    paths = [tmp_path / f"{index}.safetensors" for index in range(len(networks))]
    for model, path in zip(networks, paths, strict=True):
        drc.save(model, path, {"steps": 300, "data": ["a", "b"]})
    assert _digests_elsewhere("drc.load(path)", paths) == [_digest(model) for model in networks]
    for model, path in zip(networks, paths, strict=True):
        loaded = drc.load(path)
        assert _digest(loaded) == _digest(model)
        assert not loaded.training and type(loaded) is type(model)
        assert get_traits(loaded) == get_traits(model) and get_cut(loaded) == get_cut(model)
        assert _count(loaded) == _count(model)
        assert read_header(path).provenance == {"steps": 300, "data": ["a", "b"]}
        frozen = {name for name, p in loaded.named_parameters() if not p.requires_grad}
        assert frozen == {name for name, p in model.named_parameters() if not p.requires_grad}


def test_a_published_compressed_network_reloads(tmp_path: Path) -> None:
    model = drc.create_model("drn_s70", scale=8)
    drc.save(model, tmp_path / "m.safetensors")
    loaded = drc.load(tmp_path / "m.safetensors")
    assert get_traits(loaded) == get_traits(model)
    for one, other in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_network_cut_twice_reloads(tmp_path: Path, small: nn.Module) -> None:
    twice = _cut(small)
    assert _count(twice) < _count(small)
    drc.save(twice, tmp_path / "m.safetensors")
    assert _digest(drc.load(tmp_path / "m.safetensors")) == _digest(twice)


def test_a_cut_network_trains_after_reloading(saved: Path) -> None:
    model = drc.load(saved).train()
    before = _digest(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    model(_image())[-1].mean().backward()
    optimizer.step()
    assert _digest(model) != before


@pytest.mark.parametrize("form", ["compiled", "parallel", "channels_last", "training", "float64"])
def test_other_forms_of_a_network_reload_equal(tmp_path: Path, form: str, small: nn.Module) -> None:
    model, wrapped = small, copy.deepcopy(small)
    if form == "compiled":
        wrapped = torch.compile(wrapped)  # type: ignore[assignment]
    elif form == "parallel":
        wrapped = nn.DataParallel(wrapped)
    elif form == "channels_last":
        wrapped = model = wrapped.to(memory_format=torch.channels_last)
    elif form == "training":
        wrapped.train()
    else:
        wrapped.double()
    drc.save(wrapped, tmp_path / "m.safetensors")
    loaded = drc.load(tmp_path / "m.safetensors")
    if form == "float64":
        assert loaded.head.weight.dtype == torch.float64
        assert torch.equal(loaded.head.weight, wrapped.head.weight)
        return
    assert _digest(loaded) == _digest(model)
    assert not loaded.training


def test_half_precision_networks_keep_their_type(tmp_path: Path) -> None:
    for kind in (torch.float16, torch.bfloat16):
        model = drc.create_model("drn_tiny").to(kind)
        drc.save(model, tmp_path / "m.safetensors")
        loaded = drc.load(tmp_path / "m.safetensors")
        for key, value in loaded.state_dict().items():
            assert value.dtype == kind and torch.equal(value, model.state_dict()[key])


def test_the_file_holds_tensors_and_json_alone(saved: Path) -> None:
    assert not zipfile.is_zipfile(saved)
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    assert header["schema_version"] == SCHEMA_VERSION and header["format"] == "drc-model"
    assert header["network"] == "drc.networks.zoo.drn.DRN"
    assert (header["preset"], header["scale"], header["value_range"]) == ("drn_tiny", 4, 255.0)


def test_saving_and_loading_draw_no_random_numbers(tmp_path: Path) -> None:
    model = drc.create_model("drn_tiny")
    before = torch.get_rng_state()
    drc.save(model, tmp_path / "m.safetensors")
    drc.load(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_saving_leaves_the_network_and_equal_networks_give_equal_files(
    tmp_path: Path, small: nn.Module
) -> None:
    before = _digest(small)
    drc.save(small, tmp_path / "a.safetensors")
    drc.save(copy.deepcopy(small), tmp_path / "b.safetensors")
    assert _digest(small) == before
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_registered_network_that_was_changed_is_not_saved_unreadable(tmp_path: Path) -> None:
    model = drc.create_model("drn_tiny")
    model.head = nn.Conv2d(3, 8, 5, padding=2)
    with pytest.raises(ModelError, match=r"was changed outside drc .*head\.weight is 8x3x5x5") as e:
        drc.save(model, tmp_path / "m.safetensors")
    assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write .*m\.safetensors"):
        drc.save(drc.create_model("drn_tiny"), tmp_path / "file" / "m.safetensors")


def test_a_device_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    drc.save(drc.create_model("drn_tiny"), tmp_path / "m.safetensors")
    with pytest.raises(DrcError, match="is not a device"):
        drc.load(tmp_path / "m.safetensors", device="tpu9")


# Networks of the user's -----------------------------------------------------------------------


def _trained(foreign: ModuleType) -> nn.Module:
    """A foreign network whose norm has seen data."""
    torch.manual_seed(4)
    model: nn.Module = foreign.Net()
    with torch.no_grad():
        model(_image() / 255)
        model.gain.fill_(0.75)
    return model.eval()


def test_a_foreign_network_is_applied_to_a_fresh_one(tmp_path: Path, foreign: ModuleType) -> None:
    dense = _trained(foreign)
    networks = [dense, _cut(dense)]
    paths = [tmp_path / "dense.safetensors", tmp_path / "cut.safetensors"]
    for model, path in zip(networks, paths, strict=True):
        drc.save(model, path)
        fresh = foreign.Net()
        before = _digest(fresh.eval())
        made = drc.apply(fresh, path)
        assert made is not fresh and _digest(fresh) == before and get_cut(fresh) is None
        assert _digest(made) == _digest(model) != before
        assert not made.training and get_cut(made) == get_cut(model)
        assert get_traits(made).scale == 2 and get_traits(made).value_range == 1.0
    source = "drc.apply(__import__('foreign_net').Net(), path)"
    assert _digests_elsewhere(source, paths) == [_digest(model) for model in networks]


def test_an_applied_network_saves_again(tmp_path: Path, foreign: ModuleType) -> None:
    small = _cut(_trained(foreign))
    drc.save(small, tmp_path / "a.safetensors")
    made = drc.apply(foreign.Net(), tmp_path / "a.safetensors")
    drc.save(made, tmp_path / "b.safetensors")
    assert _digest(drc.apply(foreign.Net(), tmp_path / "b.safetensors")) == _digest(small)


def test_load_sends_a_foreign_network_to_apply(tmp_path: Path, foreign: ModuleType) -> None:
    path = tmp_path / "m.safetensors"
    drc.save(foreign.Net(), path)
    with pytest.raises(WeightsError) as error:
        drc.load(path)
    assert str(error.value) == (
        f"{path} holds foreign_net.Net, which drc cannot build; "
        "make one as you did before and use drc.apply(your_model, path)"
    )


def test_apply_refuses_another_network(tmp_path: Path, foreign: ModuleType) -> None:
    small = _cut(_trained(foreign))
    drc.save(small, tmp_path / "cut.safetensors")
    drc.save(_trained(foreign), tmp_path / "dense.safetensors")
    for name, other in [
        ("cut", nn.Sequential(nn.Conv2d(3, 3, 1))),
        ("cut", foreign.Net(features=4)),
        ("dense", foreign.Net(features=16)),
        ("dense", drc.create_model("drn_tiny")),
    ]:
        path = tmp_path / f"{name}.safetensors"
        with pytest.raises(WeightsError, match=r"holds foreign_net\.Net") as error:
            drc.apply(other, path)
        assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="already cut"):
        drc.apply(small, tmp_path / "cut.safetensors")


def test_apply_takes_a_registered_network_too(saved: Path, small: nn.Module) -> None:
    made = drc.apply(drc.create_model("drn_tiny"), saved)
    assert _digest(made) == _digest(small) and get_traits(made) == get_traits(small)


def test_tied_weights_save_and_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.second = nn.Conv2d(3, 3, 3, padding=1)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = Tied().eval()
    drc.save(model, tmp_path / "m.safetensors")
    made = drc.apply(Tied(), tmp_path / "m.safetensors")
    assert made.second.weight is made.first.weight
    assert _digest(made) == _digest(model)


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Extra(nn.Conv2d):
        def get_extra_state(self) -> dict[str, int]:
            return {"seen": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.seen = state["seen"]

    with pytest.raises(ModelError, match="_extra_state of Extra is no tensor"):
        drc.save(Extra(3, 3, 1), tmp_path / "m.safetensors")


# Bad files ------------------------------------------------------------------------------------


def _with_header(path: Path, **changes: Any) -> None:
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    header = {k: v for k, v in {**header, **changes}.items() if v != "drop"}
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(header)})


def kept(**layers: object) -> dict[str, object]:
    """The cut of a header that keeps some indices of the weights of layers."""
    return {"kept": {f"{name}.weight": dims for name, dims in layers.items()}, "sizes": []}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, f"reads up to {SCHEMA_VERSION}; update drc"),
        ({"schema_version": "drop"}, "has no schema_version"),
        ({"format": "drc-other"}, r"was not saved by drc\.save"),
        ({"later": 1}, "has a damaged header: later: unknown key"),
        ({"scale": "drop"}, "has a damaged header: scale: field required"),
        ({"value_range": -1}, "has a damaged header: value_range: "),
        ({"preset": "drn_xxl"}, "cannot be built by this version of drc: no network is called"),
        ({"scale": 16}, "cannot be built by this version of drc: drn_tiny has no scale x16"),
        ({"widths": [1, 2]}, "cannot be built by this version of drc: this network takes 20"),
        ({"cut": None}, "and this is another: other shapes: "),
        ({"cut": kept(nowhere={"0": [1]})}, "cannot be built .*the cut names nowhere.weight"),
        ({"cut": kept(head={"0": [99]})}, "cannot be built .*keeps index 99"),
        ({"cut": kept(head={"0": [-99]})}, "cannot be built .*cut is damaged"),
        ({"cut": kept(head={"0": []})}, "cannot be built .*cut is damaged"),
        ({"cut": kept(head={"x": [0]})}, "cannot be built .*cut is damaged"),
        ({"cut": kept(head=[0])}, "cannot be built .*cut is damaged"),
        ({"cut": [1]}, "has a damaged header: cut: "),
    ],
)
def test_a_wrong_header_is_named(saved: Path, changes: dict[str, Any], message: str) -> None:
    _with_header(saved, **changes)
    with pytest.raises(WeightsError, match=message) as error:
        drc.load(saved)
    text = str(error.value)
    assert text.startswith(str(saved)) and "\n" not in text


@pytest.mark.parametrize("left", [0, 5, 8, 60, 0.5, -1])
def test_a_truncated_file_is_named(saved: Path, left: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(left * len(whole)) if 0 < left < 1 else int(left)])
    with pytest.raises(WeightsError, match="is corrupt or cut short") as error:
        drc.load(saved)
    assert "\n" not in str(error.value)


def test_files_that_are_not_drcs_are_named(tmp_path: Path) -> None:
    plain, pickled = tmp_path / "plain.safetensors", tmp_path / "w.pth"
    state = drc.create_model("drn_tiny").state_dict()
    save_file(state, plain)
    torch.save(state, pickled)
    for metadata in ({METADATA_KEY: "not json"}, {METADATA_KEY: '{"steps": "1000"}'}):
        save_file(state, tmp_path / f"{len(metadata[METADATA_KEY])}.safetensors", metadata)
    for path in tmp_path.iterdir():
        with pytest.raises(WeightsError) as error:
            drc.load(path)
        assert str(error.value) == (
            f"{path} was not saved by drc.save; drc.create_model(name, weights=FILE) reads others"
        )
    with pytest.raises(WeightsError, match="there is no file"):
        drc.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(WeightsError, match="there is no file"):
        drc.load(tmp_path)


def test_an_uncut_file_of_drcs_serves_as_weights(tmp_path: Path, saved: Path) -> None:
    model = drc.create_model("drn_tiny")
    drc.save(model, tmp_path / "dense.safetensors")
    again = drc.create_model("drn_tiny", weights=tmp_path / "dense.safetensors")
    assert _digest(again) == _digest(model)
    with pytest.raises(WeightsError, match=r"opens with drc\.load"):
        drc.create_model("drn_tiny", weights=saved)


# Dual models ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "width"), [(2, 16), (4, 8), (8, 16)])
def test_a_dual_model_reloads_equal(tmp_path: Path, scale: int, width: int) -> None:
    dual = DualModel(scale, width)
    save_dual(dual, tmp_path / "run" / "dual.safetensors")
    loaded = load_dual(tmp_path / "run" / "dual.safetensors", scale)
    x = torch.rand(1, 3, 8 * scale, 8 * scale)
    with torch.no_grad():
        assert torch.equal(loaded(x)[0], dual(x)[0])

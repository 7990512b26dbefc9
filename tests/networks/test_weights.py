"""Reading checkpoints: every wrapper and prefix, and every way in which a file can be bad."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import drc
from drc.core.errors import UsageError, WeightsError
from drc.networks import registry
from drc.networks.checkpoints import read_checkpoint
from drc.networks.dual import ChainDual, DualModel, load_dual
from drc.networks.registry import Preset, get_preset, register, schema
from drc.networks.weights import load_weights, locate, locate_dual
from drc.opening import open_network


def _one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return drc.create_model("drn_tiny").state_dict()


@pytest.fixture
def saved(tmp_path: Path, state: dict[str, Tensor]) -> Callable[..., Path]:
    def save(content: Any = None, name: str = "weights.pth", **options: Any) -> Path:
        torch.save(state if content is None else content, tmp_path / name, **options)
        return tmp_path / name

    return save


def _prefixed(state: dict[str, Tensor], prefix: str) -> OrderedDict[str, Tensor]:
    return OrderedDict((prefix + key, value) for key, value in state.items())


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda s: s,
    "params": lambda s: {"params": s},
    "params_ema first": lambda s: {"params": {"a": torch.zeros(1)}, "params_ema": s},
    "state_dict": lambda s: {"epoch": 3, "loss": torch.zeros(1), "state_dict": s},
    "model": lambda s: {"model": s, "optimizer": {"lr": 0.1}},
    "nested": lambda s: {"model": {"state_dict": {"params_ema": s}}},
    "module.": lambda s: _prefixed(s, "module."),
    "_orig_mod.": lambda s: _prefixed(s, "_orig_mod."),
    "both": lambda s: {"state_dict": _prefixed(s, "module._orig_mod.")},
    "both, other way": lambda s: _prefixed(s, "_orig_mod.module."),
    "parameters": lambda s: {key: nn.Parameter(value) for key, value in s.items()},
}


@pytest.mark.parametrize("case", WRAPPED)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_wrappers_and_prefixes_come_off(
    case: str, suffix: str, saved: Callable[..., Path], state: dict[str, Tensor]
) -> None:
    found = read_checkpoint(saved(WRAPPED[case](state), f"w{suffix}"))
    assert list(found) == list(state)
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert not any(tensor.requires_grad for tensor in found.values())


def test_a_prefix_inside_a_name_comes_off(saved: Callable[..., Path]) -> None:
    path = saved({"module.body._orig_mod.0.weight": torch.ones(2)})
    assert list(read_checkpoint(path)) == ["body.0.weight"]


def test_module_is_kept_where_it_is_a_name_of_the_network(saved: Callable[..., Path]) -> None:
    path = saved({"module.weight": torch.ones(2), "head.weight": torch.ones(2)})
    assert sorted(read_checkpoint(path)) == ["head.weight", "module.weight"]


def test_the_legacy_format_reads(saved: Callable[..., Path], state: dict[str, Tensor]) -> None:
    path = saved(_use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(path)["head.weight"], state["head.weight"])


@pytest.mark.parametrize("name", ["weights.safetensors", "misnamed.pth"])
def test_safetensors_read_by_content(tmp_path: Path, state: dict[str, Tensor], name: str) -> None:
    save_file(_prefixed(state, "module."), tmp_path / name)
    assert read_checkpoint(tmp_path / name).keys() == state.keys()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["half.safetensors", "half.pth"])
def test_other_float_types_load_as_float32(
    tmp_path: Path, state: dict[str, Tensor], kind: torch.dtype, name: str
) -> None:
    converted = {key: value.to(kind) for key, value in state.items()}
    path = tmp_path / name
    save_file(converted, path) if path.suffix == ".safetensors" else torch.save(converted, path)
    model = drc.create_model("drn_tiny", weights=path)
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, converted[key].float())


def test_loaded_weights_give_the_outputs_of_the_network_saved(tmp_path: Path) -> None:
    source = drc.create_model("drn_tiny")
    torch.save({"params": source.state_dict()}, tmp_path / "w.pth")
    torch.manual_seed(99)
    model = drc.create_model("drn_tiny", weights=str(tmp_path / "w.pth"))
    assert not model.training
    x = torch.rand(1, 3, 8, 8) * 255
    with torch.no_grad():
        assert torch.equal(model(x)[-1], source(x)[-1])


def test_the_published_compressed_file_loads_by_name_or_by_widths(tmp_path: Path) -> None:
    torch.save(drc.create_model("drn_s70").state_dict(), tmp_path / "DRNS_4x_Prune_70.pt")
    path = tmp_path / "DRNS_4x_Prune_70.pt"
    named = drc.create_model("drn_s70", weights=path)
    listed = drc.create_model(
        "drn_s", weights=path, widths=get_preset("drn_s70").arguments[4]["widths"]
    )
    for one, other in zip(named.parameters(), listed.parameters(), strict=True):
        assert torch.equal(one, other)


# Bad files ------------------------------------------------------------------------------------


class _Bomb:
    """Unpickled by an unsafe reader, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    tmp_path: Path, state: dict[str, Tensor], form: str, beside: bool
) -> None:
    target, path = tmp_path / "ran", tmp_path / "evil.pth"
    content: Any = {"state_dict": state, "x": _Bomb(target)} if beside else _Bomb(target)
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError) as error:
        drc.create_model("drn_tiny", weights=path)
    text = _one_line(error)
    assert f"{path} is refused: loading it would run code (" in text and "mkdir" in text
    assert "torch.save(model.state_dict(), NEW_FILE)" in text
    assert not target.exists()
    # The same file does run its code in an unsafe reader, or the test would prove nothing.
    torch.load(path, weights_only=False)
    assert target.is_dir()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    target, path = tmp_path / "ran", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(_Bomb(target), protocol))
    with pytest.raises(WeightsError, match=r"is refused|a pickle of more than tensors") as error:
        read_checkpoint(path)
    _one_line(error)
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.is_dir()


@pytest.mark.parametrize("form", ["namespace", "whole network"])
def test_objects_beside_tensors_are_refused_by_name(saved: Callable[..., Path], form: str) -> None:
    content = {"args": argparse.Namespace(lr=1)} if form == "namespace" else nn.Conv2d(3, 3, 1)
    with pytest.raises(WeightsError) as error:
        read_checkpoint(saved(content))
    named = {"namespace": "argparse.Namespace", "whole network": "torch.nn.modules.conv.Conv2d"}
    assert named[form] in _one_line(error)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.trace(nn.Conv2d(3, 3, 1), torch.rand(1, 3, 4, 4)).save(str(path))
    with pytest.raises(WeightsError, match=r"is a TorchScript program; .*torch.jit.load") as error:
        read_checkpoint(path)
    _one_line(error)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no weights file .*nowhere\.pth"):
        drc.create_model("drn_tiny", weights=tmp_path / "nowhere.pth")
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_checkpoint(tmp_path / "nowhere.safetensors")
    with pytest.raises(WeightsError, match="is a directory"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["w.pth", "old.pth", "w.safetensors"])
@pytest.mark.parametrize("left", [0, 1, 7, 9, 100, 0.1, 0.5, 0.9, -1])
def test_truncated_files_are_named(
    tmp_path: Path, state: dict[str, Tensor], name: str, left: float
) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "w.pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if 0 < left < 1 else int(left)])
    with pytest.raises(WeightsError, match=f"{name} is corrupt") as error:
        read_checkpoint(path)
    _one_line(error)


def _small(path: Path, form: str) -> bytes:
    state = {"head.weight": torch.arange(12.0).reshape(3, 4), "head.bias": torch.ones(3)}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"params": state}, path, _use_new_zipfile_serialization=form == "zip")
    return path.read_bytes()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_bytes_never_give_another_kind_of_error(
    tmp_path: Path, form: str, data: st.DataObject
) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    whole = bytearray(_small(path, form))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        read_checkpoint(path)
    except WeightsError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("text", ["", "not a checkpoint", "<!DOCTYPE html><html></html>", "{}"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_other_files_are_no_checkpoints(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(WeightsError, match=name) as error:
        read_checkpoint(tmp_path / name)
    _one_line(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no state dict; it is empty"),
        ({"params": {}}, "holds no state dict; it is empty"),
        ({"epoch": 3, "lr": 0.1}, "holds no state dict; its keys are epoch, lr"),
        ({3: torch.zeros(1)}, "holds no state dict; its keys are 3"),
        (torch.zeros(3), "holds no state dict"),
        ("text", "holds no state dict"),
        ([{"a": torch.zeros(1)}], "holds a list, the form of a dual model"),
    ],
)
def test_files_without_a_state_dict_say_what_they_hold(
    saved: Callable[..., Path], content: Any, message: str
) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        read_checkpoint(saved(content))
    _one_line(error)


def test_a_dict_that_holds_itself_ends(saved: Callable[..., Path]) -> None:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    with pytest.raises(WeightsError, match="holds no state dict; its keys are model"):
        read_checkpoint(saved(loop))


def test_nan_in_a_file_is_named(saved: Callable[..., Path], state: dict[str, Tensor]) -> None:
    broken = {key: value.clone() for key, value in state.items()}
    broken["head.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"is damaged: head\.weight holds NaN or infinity"):
        drc.create_model("drn_tiny", weights=saved(broken))


# Checkpoints of other networks ----------------------------------------------------------------


def _zeros(name: str, scale: int) -> dict[str, Tensor]:
    """A state dict with the names and shapes of a preset, in little memory."""
    return {key: torch.zeros(1).expand(shape) for key, shape in schema(name, scale).items()}


@pytest.mark.parametrize(
    ("name", "scale"), [("drn_s", 4), ("drn_l", 4), ("drn_s30", 4), ("drn_s", 8), ("drn_tiny", 4)]
)
def test_the_checkpoint_of_another_preset_is_recognised(
    saved: Callable[..., Path], name: str, scale: int
) -> None:
    wanted = "drn_s50" if name != "drn_tiny" else "drn_s"
    path = saved(_zeros(name, scale))
    with pytest.raises(WeightsError) as error:
        drc.create_model(wanted, weights=path)
    text = _one_line(error)
    assert text.startswith(f"{path} does not fit {wanted} x4: ")
    assert text.endswith(f"; it is {name} x{scale}")


def test_the_first_differing_names_and_shapes_are_given(
    saved: Callable[..., Path], state: dict[str, Tensor]
) -> None:
    other = dict(state)
    del other["head.weight"], other["head.bias"], other["tail.0.weight"]
    other["body.weight"] = torch.zeros(1)
    other["tail.0.bias"] = torch.zeros(5, 2)
    with pytest.raises(WeightsError) as error:
        drc.create_model("drn_tiny", weights=saved(other))
    assert _one_line(error).endswith(
        "weights.pth does not fit drn_tiny x4: missing head.weight, head.bias and 1 more; "
        "unexpected body.weight; other shapes: tail.0.bias is 5x2, needs 3"
    )


def test_a_compressed_network_is_told_from_its_dense_form(saved: Callable[..., Path]) -> None:
    path = saved(drc.create_model("drn_tiny", widths=[4] * 20).state_dict())
    with pytest.raises(WeightsError) as error:
        drc.create_model("drn_tiny", weights=path)
    assert "its names are those of drn_tiny x4 with other channel counts" in _one_line(error)


def test_a_failed_load_leaves_the_network_as_it_was(
    saved: Callable[..., Path], state: dict[str, Tensor]
) -> None:
    model = drc.create_model("drn_tiny")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError):
        load_weights(model, saved({**state, "tail.2.bias": torch.zeros(4)}))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# Where weights come from ----------------------------------------------------------------------


def test_none_means_initial_weights() -> None:
    assert locate(get_preset("drn_s"), 4, "none") is None
    torch.manual_seed(5)
    first = drc.create_model("drn_tiny", weights=None)
    torch.manual_seed(5)
    second = drc.create_model("drn_tiny", weights="none")
    assert torch.equal(first.head.weight, second.head.weight)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").touch()
    assert locate(get_preset("drn_s"), 4, "~/w.pth") == tmp_path / "w.pth"


def test_a_network_without_published_weights_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_PRESETS", {n: get_preset(n) for n in drc.list_models()})
    register(Preset("test_unpublished", get_preset("drn_tiny").build, {4: {}}, 1.0))
    with pytest.raises(WeightsError, match="no weights are published for test_unpublished x4; "):
        locate(get_preset("test_unpublished"), 4, "default")


def test_default_weights_with_other_widths_are_refused_before_any_download() -> None:
    with pytest.raises(UsageError, match="published weights of drn_s do not have these widths"):
        drc.create_model("drn_s", weights="default", widths=[4] * 64)


def test_the_packaged_network_and_its_dual_model_load() -> None:
    model, dual = drc.create_model("drn_tiny", weights="default", dual=True)
    path = locate_dual(get_preset("drn_tiny"), 4)
    assert path is not None
    assert path.stat().st_size + locate(get_preset("drn_tiny"), 4, None).stat().st_size < 2e6
    ramp = torch.linspace(20, 235, 24)
    x = torch.stack([ramp.expand(24, 24), ramp.flip(0).expand(24, 24).T, ramp.expand(24, 24).T])[
        None
    ]
    with torch.no_grad():
        images = dual(model(x))
        sr = model(x)[-1]
    assert [tuple(y.shape[-2:]) for y in images] == [(24, 24), (48, 48)]
    # Trained: both ways end near the image they began with.
    assert (images[0] - x)[..., 4:-4, 4:-4].abs().mean() < 10
    assert (torch.nn.functional.avg_pool2d(sr, 4) - x)[..., 4:-4, 4:-4].abs().mean() < 10


# Dual models ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "width"), [(2, 16), (4, 16), (4, 20), (8, 8)])
def test_an_official_dual_list_loads_step_by_step(
    saved: Callable[..., Path], scale: int, width: int
) -> None:
    source = DualModel(scale, width)
    path = saved([step.state_dict() for step in source.steps])
    loaded = load_dual(path, scale)
    pyramid = [torch.rand(1, 3, 8 * 2**i, 8 * 2**i) for i in range(len(source.steps) + 1)]
    with torch.no_grad():
        for one, other in zip(loaded(pyramid), source(pyramid), strict=True):
            assert torch.equal(one, other)


def test_prefixed_and_half_precision_dual_lists_load(saved: Callable[..., Path]) -> None:
    source = DualModel(4).half()
    path = saved([_prefixed(step.state_dict(), "module.") for step in source.steps])
    loaded = load_dual(path, 4)
    for one, other in zip(loaded.parameters(), source.parameters(), strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other.float())


def test_our_own_dual_state_loads(tmp_path: Path) -> None:
    source = DualModel(4)
    save_file(source.half().state_dict(), tmp_path / "dual.safetensors")
    loaded = load_dual(tmp_path / "dual.safetensors", 4)
    assert torch.equal(loaded.steps[1].dual_module[1].weight, source.steps[1].dual_module[1].weight)


def test_a_checkpoint_of_both_networks_is_told_apart(saved: Callable[..., Path]) -> None:
    """SwinIR-DR, DAT-DR and DCLS-DRC keep their dual model among the network's own weights."""
    network, dual = drc.create_model("drn_tiny"), ChainDual(4, width=12)
    both = {**network.state_dict(), **_prefixed(dual.state_dict(), "dual_model.")}
    path = saved({"params": both})
    loaded, its_dual = drc.create_model("drn_tiny", weights=path, dual=True)
    found = open_network(None, str(path))
    image = torch.rand(1, 3, 8, 8) * 255
    with torch.no_grad():
        assert all(map(torch.equal, loaded(image), network(image)))
        assert all(map(torch.equal, found(image), network(image)))
        (given_back,) = its_dual(network(image))
        assert torch.equal(given_back, dual(network(image))[0])
    assert tuple(given_back.shape) == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no dual model"),
        ([{"a": torch.zeros(1)}], r"holds no dual model; its names begin \['steps.0.a'\]"),
        ([DualModel(2).steps[0].state_dict()], "is no dual model for x4: missing steps.1."),
        ([s.state_dict() for s in DualModel(8).steps], "for x4: unexpected steps.2."),
        ([3, 4], "holds no state dict"),
        ({"head.weight": torch.zeros(1)}, "holds no dual model"),
    ],
)
def test_files_that_are_no_dual_model_are_refused(
    saved: Callable[..., Path], content: Any, message: str
) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        load_dual(saved(content), 4)
    _one_line(error)

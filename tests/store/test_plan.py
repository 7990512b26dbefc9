"""Plans on disk: round trip, and every way in which the file can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

import drc
from drc.core.errors import RunError
from drc.store.plan import SCHEMA_VERSION, Budget, GroupWidth, Plan, fingerprint


def _plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "model": "drn_tiny",
        "scale": 4,
        "base_checksum": "ab" * 32,
        "strategy": "allocate",
        "groups": {
            "up_blocks.1.0.body.0": GroupWidth(keep=12, of=32),
            "down.0.dual_module.0.0": GroupWidth(keep=8, of=8),
        },
        "budget": Budget(
            kind="params", ratio=0.3, before=384_361, limit=269_052, predicted=268_900
        ),
        "seed": 3,
        "notes": ["the dual model was fitted on 4 photos: it is small", "yes"],
    }
    return Plan(**{**values, **changes})


def _edited(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "plan.yaml"
    _plan().save(path)
    content = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v != "drop"}))
    return path


def test_a_plan_round_trips(tmp_path: Path) -> None:
    for lr_size in (None, (96, 96)):
        budget = Budget(
            kind="macs", ratio=1 / 3, before=10**12, limit=7, predicted=6, lr_size=lr_size
        )
        plan = _plan(budget=budget)
        plan.save(tmp_path / "plan.yaml")
        loaded = Plan.load(tmp_path / "plan.yaml")
        assert loaded == plan
        assert list(loaded.groups) == list(plan.groups)


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=6),
    notes=st.lists(st.text(max_size=20), max_size=3),
    ratio=st.floats(1e-6, 1 - 1e-6),
)
def test_any_names_notes_and_ratios_round_trip(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], notes: list[str], ratio: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "property_plan.yaml"
    groups = {name: GroupWidth(keep=1, of=index + 1) for index, name in enumerate(names)}
    budget = Budget(kind="params", ratio=ratio, before=9, limit=8, predicted=7)
    plan = _plan(groups=groups, notes=notes, budget=budget)
    plan.save(path)
    assert Plan.load(path) == plan


def test_equal_plans_are_equal_files_that_a_person_can_read(tmp_path: Path) -> None:
    _plan().save(tmp_path / "a.yaml")
    _plan().save(tmp_path / "b.yaml")
    text = (tmp_path / "a.yaml").read_text()
    assert text == (tmp_path / "b.yaml").read_text()
    assert text.startswith("schema_version: 1\nmodel: drn_tiny\nscale: 4\n")
    assert "  up_blocks.1.0.body.0: {keep: 12, of: 32}\n" in text


def test_a_newer_plan_is_refused(tmp_path: Path) -> None:
    path = _edited(tmp_path, schema_version=SCHEMA_VERSION + 1, layers=[])
    with pytest.raises(RunError) as error:
        Plan.load(path)
    assert str(error.value) == (
        f"{path} has schema version {SCHEMA_VERSION + 1} "
        f"and this drc reads up to {SCHEMA_VERSION}; update drc"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": "drop"}, "has no schema_version"),
        ({"schema_version": "1"}, "has no schema_version"),
        ({"extra": 1}, "is not a valid plan: extra: unknown key"),
        ({"strategy": "drop"}, "is not a valid plan: strategy: field required"),
        ({"scale": "four"}, "scale: input should be a valid integer"),
        ({"groups": {"a": {"keep": 5, "of": 4}}}, "groups.a: keeps 5 of 4 channels"),
        ({"groups": {"a": {"keep": 0, "of": 4}}}, "groups.a.keep: input should be greater"),
        ({"groups": {"a": {"keep": 1, "of": 4, "by": 1}}}, "groups.a.by: unknown key"),
        ({"budget": {"kind": "joules"}}, "budget.kind: input should be 'params', 'macs' or 'lat"),
    ],
)
def test_a_wrong_plan_says_where(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = _edited(tmp_path, **changes)
    with pytest.raises(RunError) as error:
        Plan.load(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"[1, 2]", b"schema_version: [", b"\x00\x01\xff", b"1: 2", b"a: !!python/none x"],
)
def test_a_corrupt_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"plan\.yaml is corrupt.*run `drc search`") as error:
        Plan.load(path)
    assert "\n" not in str(error.value)


def test_yaml_that_would_run_code_does_not(tmp_path: Path) -> None:
    path, target = tmp_path / "plan.yaml", tmp_path / "ran"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{target}']")
    with pytest.raises(RunError, match="is corrupt"):
        Plan.load(path)
    assert not target.exists()


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no file .*plan.yaml; it should be a plan"):
        Plan.load(tmp_path / "plan.yaml")
    with pytest.raises(RunError, match="cannot read"):
        Plan.load(tmp_path)


def test_a_plan_cut_short_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    _plan(notes=[]).save(path)
    whole = path.read_bytes()
    for length in range(0, whole.index(b"seed:"), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError):
            Plan.load(path)


def test_nonsense_cannot_be_made_in_code_either() -> None:
    with pytest.raises(ValidationError):
        GroupWidth(keep=9, of=8)
    with pytest.raises(ValidationError):
        Budget(kind="params", ratio=1.0, before=1, limit=1, predicted=1)


# Fingerprints ---------------------------------------------------------------------------------


def test_the_fingerprint_follows_the_weights() -> None:
    torch.manual_seed(1)
    first = drc.create_model("drn_tiny")
    second = drc.create_model("drn_tiny")
    assert fingerprint(first) != fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second) == fingerprint(second.train())
    with torch.no_grad():
        second.tail[2].bias[1].copy_(second.tail[2].bias[1].nextafter(torch.tensor(9.0)))
    assert fingerprint(first) != fingerprint(second)


def test_the_fingerprint_is_the_same_everywhere() -> None:
    layer = nn.Conv2d(2, 1, 1)
    nn.init.constant_(layer.weight, 0.5)
    nn.init.constant_(layer.bias, -1.0)
    expected = "a00f9237b4a71392dc2795ac0b19f99af97fe29dfca842e66438345b66e874ec"
    assert fingerprint(layer) == expected
    assert fingerprint(layer.to(memory_format=torch.channels_last)) == expected
    assert fingerprint(layer.double()) != expected


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_number_type_has_a_fingerprint(kind: torch.dtype) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).to(kind)
    network.register_buffer("empty", torch.zeros(0, dtype=torch.bool))
    assert len(fingerprint(network)) == 64

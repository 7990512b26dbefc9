"""`drc inspect` and `drc.inspect`: what can be removed, what it holds, what stays and why."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from helpers.cli import assert_one_line, drc
from helpers.networks import REMOVABLE, Plain, Residual, Shared, Unknown
from torch import nn

from drc import complexity, create_model, inspect
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.report.inspection import Inspection

MINE = """
import torch
from torch import nn

class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.tail = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x):
        return self.tail(self.body(torch.sort(self.head(x), dim=1).values))
"""


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.tail(torch.relu(self.head(torch.cat((image * mask, mask), 1))))


def test_json_is_the_whole_inspection(tmp_path: Path) -> None:
    result = drc("inspect", "drn_tiny", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = Inspection.model_validate_json(result.stdout)
    cost = complexity(create_model("drn_tiny"))
    assert (found.params, found.macs, found.lr_size) == (cost.params, cost.macs, (96, 96))
    by_name = {group.name: group for group in found.groups}
    assert by_name["head"].channels == 8
    # 3 -> 8, into a stride-2 convolution to 8, and one of the 16 inputs of the last tail.
    assert (
        by_name["head"].params
        == sum(p.numel() for p in create_model("drn_tiny").head.parameters())
        + 8 * 8 * 9
        + 8 * 3 * 9
    )
    assert {f.name for f in found.frozen} >= {"sub_mean", "add_mean"}


def test_the_table_merges_blocks_that_are_alike(tmp_path: Path) -> None:
    result = drc("inspect", "drn_tiny", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (blocks,) = (li for li in result.stdout.splitlines() if "up_blocks.0.*.body.0 " in li)
    assert [cell.strip() for cell in blocks.split("│")[2:4]] == ["8", "32"]
    assert "removable: 41 of " in result.stdout
    assert "\x1b" not in result.stdout


def test_a_network_of_the_users_code_and_the_op_that_freezes_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    result = drc("inspect", "mine:Sorted", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [group["name"] for group in found["groups"]] == ["body"]
    (reason,) = (f["reason"] for f in found["frozen"] if (f["name"], f["channels"]) == ("head", 8))
    assert "aten.sort" in reason
    table = drc("inspect", "mine:Sorted", cwd=tmp_path).stdout
    assert "aten.sort" in table
    assert "removable: 1 of " in table


def test_a_network_known_by_its_weights(tmp_path: Path) -> None:
    torch.save(create_model("drn_tiny").state_dict(), tmp_path / "weights.pth")
    result = drc("inspect", "--weights", "weights.pth", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["model"] == "DRN"


def test_no_network_is_a_usage_error(tmp_path: Path) -> None:
    assert_one_line(drc("inspect", cwd=tmp_path), 2, "drc inspect NAME", "--weights FILE")


def test_a_wrong_name_is_a_usage_error(tmp_path: Path) -> None:
    assert_one_line(drc("inspect", "drn_tini", cwd=tmp_path), 2, "drn_tini", "drn_tiny")


def test_missing_weights(tmp_path: Path) -> None:
    assert_one_line(drc("inspect", "--weights", "none.pth", cwd=tmp_path), 1, "none.pth")


@pytest.mark.parametrize("network", REMOVABLE, ids=lambda network: network.__name__)
def test_params_per_channel_are_what_one_channel_frees(network: type[nn.Module]) -> None:
    model = network().eval()
    graph = trace(model)
    found = inspect(model)
    assert [group.name for group in found.groups] == [group.name for group in graph.groups]
    for group in found.groups:
        small = cut(model, graph, {group.name: list(range(group.channels - 1))})
        freed = found.params - sum(p.numel() for p in small.parameters())
        assert group.params_per_channel == freed, group.name


def test_params_of_a_group_are_the_elements_in_its_slices() -> None:
    model = Shared().eval()
    found = inspect(model)
    (group,) = found.groups
    # head: 3x3x3 + 1 for each of 8; twice: all of it, once; tail: 8 inputs of 3 filters.
    assert group.params == 8 * 28 + (8 * 8 * 9 + 8) + 8 * 27
    assert group.layers == 3
    assert found.params_removable == group.params
    assert {(s.tensor, s.dim) for s in group.slices} >= {("twice.weight", 0), ("twice.weight", 1)}


def test_macs_are_those_of_the_size_asked_for() -> None:
    model = Plain().eval()
    found = inspect(model, lr_size=(10, 12))
    assert found.lr_size == (10, 12)
    assert found.macs == 120 * (8 * 27 + 12 * 72)
    assert found.groups[0].macs == found.macs_removable == found.macs
    assert found.groups[0].macs_per_channel == 120 * (27 + 12 * 9)


def test_a_network_that_needs_more_than_an_image_has_no_macs() -> None:
    found = inspect(Masked(), (torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8)))
    assert found.groups[0].channels == 8
    assert found.macs is None
    assert found.groups[0].macs is None
    assert "note: MACs could not be counted" in str(found)


def test_what_stays_is_told_apart() -> None:
    kinds = {(f.name, f.kind) for f in inspect(Unknown()).frozen}
    assert {("head", "end"), ("head", "frozen"), ("tail", "end")} <= kinds


def test_the_model_and_the_random_numbers_are_left_as_they_were() -> None:
    model = Residual().train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    inspect(model)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())

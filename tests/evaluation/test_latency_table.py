"""The table of layer times: measured once, kept in a file, and never trusted when damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.networks import conv
from torch import Tensor, nn

from drc.core.errors import ModelError
from drc.evaluation.latency_table import LatencyTable, LayerShape, cache_folder
from drc.evaluation.layer_calls import layer_calls
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.networks.registry import build

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
SMALL = LayerShape("conv", (4, 3, 3, 3), (1, 8, 8), (1, 1), (1, 1), (1, 1))
LARGE = LayerShape("conv", (64, 64, 3, 3), (1, 48, 48), (1, 1), (1, 1), (1, 1))


class Kinds(nn.Module):
    """Every kind of layer that the table knows, all of a width that can change."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.deep = conv(3, 8), conv(8, 8, groups=8)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8))
        self.down = nn.Conv2d(8, 10, 3, stride=2, padding=2, dilation=2, bias=False)
        self.up = nn.ConvTranspose2d(10, 6, 4, stride=2, padding=1)
        self.tail = nn.utils.weight_norm(conv(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep(self.head(x))
        x = self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.tail(self.up(self.down(x).relu()).relu())


def test_a_time_is_measured_once_and_more_work_takes_longer(tmp_path: Path) -> None:
    table = LatencyTable(CPU, folder=tmp_path)
    first = table.microseconds([SMALL, LARGE, SMALL])
    assert table.measured == 2
    assert 0 < first[SMALL] < first[LARGE]
    assert table.microseconds([LARGE, SMALL]) == first
    assert table.measured == 2
    assert LatencyTable(CPU, folder=tmp_path).microseconds([SMALL, LARGE]) == first


def test_another_process_reads_what_was_measured(tmp_path: Path) -> None:
    table = LatencyTable(CPU, folder=tmp_path)
    table.microseconds([SMALL])
    script = (
        "import sys, torch; from pathlib import Path;"
        "from drc.evaluation.latency_table import LatencyTable, LayerShape;"
        f"torch.set_num_threads({torch.get_num_threads()});"
        "table = LatencyTable(torch.device('cpu'), folder=Path(sys.argv[1]));"
        f"table.microseconds([{SMALL!r}]); print(table.measured)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "0"


@pytest.mark.parametrize(
    "content",
    ["", '{"micro', "[1]", "{}", '{"schema_version": 99, "microseconds": {}}', "\x00\xff"],
)
def test_a_damaged_file_is_measured_again(tmp_path: Path, content: str) -> None:
    path = LatencyTable(CPU, folder=tmp_path).path
    path.write_text(content, "latin-1")
    table = LatencyTable(CPU, folder=tmp_path)
    assert table.microseconds([SMALL])[SMALL] > 0
    assert table.measured == 1
    assert LatencyTable(CPU, folder=tmp_path).microseconds([SMALL]) == table.microseconds([SMALL])


@pytest.mark.parametrize("value", [-1.0, 0, "fast", None, True, float("inf")])
def test_a_time_that_is_none_is_measured_again(tmp_path: Path, value: object) -> None:
    table = LatencyTable(CPU, folder=tmp_path)
    table.microseconds([SMALL])
    content = json.loads(table.path.read_text())
    content["microseconds"] = dict.fromkeys(content["microseconds"], value)
    table.path.write_text(json.dumps(content))
    again = LatencyTable(CPU, folder=tmp_path)
    again.microseconds([SMALL])
    assert again.measured == 1


def test_no_layer_takes_no_time_where_the_clock_is_coarse(tmp_path: Path) -> None:
    table = LatencyTable(CPU, folder=tmp_path)
    table._clock = lambda: 0.0
    assert table.microseconds([SMALL])[SMALL] > 0
    assert LatencyTable(CPU, folder=tmp_path).microseconds([SMALL]) == table.microseconds([SMALL])


def test_two_writers_keep_each_others_times(tmp_path: Path) -> None:
    one, other = (LatencyTable(CPU, folder=tmp_path) for _ in range(2))
    one.microseconds([SMALL])
    other.microseconds([LARGE])
    both = LatencyTable(CPU, folder=tmp_path)
    both.microseconds([SMALL, LARGE])
    assert both.measured == 0


def test_other_conditions_have_another_file(tmp_path: Path) -> None:
    table = LatencyTable(CPU, folder=tmp_path)
    assert LatencyTable(CPU, torch.bfloat16, tmp_path).path != table.path
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert LatencyTable(CPU, folder=tmp_path).path != table.path
    finally:
        torch.set_num_threads(threads)


def test_a_folder_that_cannot_be_written_costs_no_more_than_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    table = LatencyTable(CPU, folder=tmp_path / "file")
    assert table.microseconds([SMALL])[SMALL] > 0


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRC_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("DRC_CACHE")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert cache_folder() == tmp_path / "torch" / "drc"


def test_calls_of_every_kind_of_layer() -> None:
    calls = layer_calls(Kinds().eval(), (8, 10), CPU)
    head, deep, first, _, down, up, tail = (call.shape for call in calls)
    assert head == LayerShape("conv", (8, 3, 3, 3), (1, 8, 10), (1, 1), (1, 1), (1, 1))
    assert deep == replace(head, weight=(8, 1, 3, 3), groups=8)
    assert first == LayerShape("linear", (12, 8), (80,))
    assert (down.stride, down.dilation, down.bias) == ((2, 2), (2, 2), False)
    assert down.channels_last  # as the Linear layers before it leave them in memory
    assert (up.kind, up.weight, up.image) == ("transposed", (10, 6, 4, 4), (1, 4, 5))
    assert tail.weight == (3, 6, 3, 3)
    assert [call.weight for call in calls[-2:]] == ["up.weight", "tail.weight_v"]
    assert [call.outputs for call in calls[:3]] == [8 * 80, 8 * 80, 12 * 80]


def test_every_kind_of_layer_runs(tmp_path: Path) -> None:
    calls = layer_calls(Kinds().eval(), (8, 10), CPU)
    for call in calls:
        output = call.shape.runner(CPU, torch.float32)()
        assert output.numel() == call.outputs
    times = LatencyTable(CPU, folder=tmp_path).microseconds(call.shape for call in calls)
    assert min(times.values()) > 0


def test_a_layer_that_runs_twice_counts_twice() -> None:
    layer = conv(3, 3)
    (call,) = layer_calls(nn.Sequential(layer, nn.ReLU(), layer), (8, 8), CPU)
    assert call.count == 2


def test_predicted_shapes_are_those_of_the_cut_network() -> None:
    model = Kinds().eval()
    graph = trace(model)
    keep = {group.name: list(range(group.size // 2)) for group in graph.groups}
    assert len(keep) == 5
    small = cut(model, graph, keep).eval()
    dense, narrow = layer_calls(model, (8, 8), CPU), layer_calls(small, (8, 8), CPU)
    for before, after in zip(dense, narrow, strict=True):
        first, second = after.shape.weight[:2]
        assert before.resized(first, second) == after.shape
        assert before.outputs * before.output_share(first, second) == after.outputs


def test_a_network_that_refuses_the_image_is_named() -> None:
    with pytest.raises(ModelError, match="cannot time a 8x8 LR image"):
        layer_calls(nn.Sequential(nn.Flatten(), nn.Linear(7, 3)), (8, 8), CPU)


def test_the_networks_own_mode_and_hooks_are_given_back() -> None:
    model = build("drn_tiny").train()
    layer_calls(model, (8, 8), CPU)
    assert all(module.training and not module._forward_hooks for module in model.modules())

"""Networks with sizes in their source, heads, halves and groups: all is removable, and exact."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.blocked import (
    BLOCKED,
    NO_PICKLE,
    Heads,
    HeadScales,
    OldWeightNormed,
    ReadWidth,
    RearrangedWidth,
    TwoWays,
)
from helpers.cutting import apart, error, gradients, images, random_keep, stuck
from helpers.sized import SIZED, Framed, UnevenSplit
from torch import nn

import drc
from drc.graph.groups import ChannelGraph
from drc.graph.ids import IdSpace
from drc.graph.sizes import ops
from drc.graph.sizes.recorder import SizeRecorder
from drc.graph.sizes.resized import attached
from drc.graph.surgery import Cut, apply_cut, copy_of, cut, get_cut
from drc.graph.trace import trace
from drc.graph.tracer import Tracer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # the old weight_norm

ALL = (*SIZED, *BLOCKED)
STAYS = {
    "Expanded": "a gate spread over channels of a spelled-out number has none of its own",
    "Recurrent": "a state of zeros has no channels before it is written",
    "MadeNew": "constants of a spelled-out width have no channels",
    "ChannelShuffled": "what a shuffle before a grouped convolution ties is not resolved",
    "DataWritten": "a weight with requires_grad off stays, though it is computed from others",
    "Checkpointed": "the backward pass runs a part of the forward outside the module's own",
}
"""What stays whole although a human could cut it; each cut that is made is exact all the same."""

every_network = pytest.mark.parametrize("network", ALL, ids=lambda network: network.__name__)


@cache
def traced(network: type[Framed]) -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = network().eval().double()
    return model, trace(model)


@every_network
def test_nothing_stays_that_could_go(network: type[Framed], request: pytest.FixtureRequest) -> None:
    if network.__name__ in STAYS:
        request.applymarker(pytest.mark.xfail(reason=STAYS[network.__name__], strict=True))
    _, graph = traced(network)
    assert not stuck(graph)
    assert graph.groups


@every_network
def test_what_is_cut_equals_what_is_masked(network: type[Framed]) -> None:
    """At several sizes, batches and widths, and on other weights than those traced."""
    model, graph = traced(network)
    other = copy_of(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    for seed, image in enumerate(images()):
        assert error(model, graph, random_keep(graph, seed), image) < 1e-9
        assert error(other, graph, random_keep(graph, 9 + seed), image) < 1e-8


@every_network
def test_keeping_everything_changes_no_bit(network: type[Framed]) -> None:
    model, graph = traced(network)
    whole = {group.name: list(range(group.size)) for group in graph.groups}
    small = cut(model, graph, whole)
    with torch.no_grad():
        assert all(torch.equal(small(image), model(image)) for image in images())


@every_network
def test_the_cut_network_learns_as_the_dense_one(network: type[Framed]) -> None:
    model, graph = traced(network)
    small = cut(model, graph, random_keep(graph))
    image = images()[0]
    found = gradients(small, image)
    assert found.keys() == gradients(model, image).keys()
    assert all(torch.isfinite(gradient).all() for gradient in found.values())
    before = small.train()(image).square().mean()
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name in found:
                parameter.sub_(1e-3 * found[name])
    assert small(image).square().mean() < before


@every_network
def test_the_cut_network_copies_and_pickles(network: type[Framed]) -> None:
    model, graph = traced(network)
    small = cut(model, graph, random_keep(graph))
    twins = [copy.deepcopy(small)]
    if network not in NO_PICKLE:
        twins.append(pickle.loads(pickle.dumps(small)))
    with torch.no_grad():
        for image in images():
            assert all(torch.equal(twin(image), small(image)) for twin in twins)


@every_network
def test_a_second_cut_is_as_right_as_the_first(network: type[Framed]) -> None:
    model, graph = traced(network)
    once = cut(model, graph, {g.name: list(range(g.size > 2, g.size)) for g in graph.groups})
    again = trace(once)
    assert len(stuck(again)) <= len(stuck(graph))
    keep = random_keep(again)
    twice = cut(once, again, keep)
    step = get_cut(twice)
    assert step is not None
    fresh = network().double().eval()
    apply_cut(fresh, Cut.from_json(json.loads(json.dumps(step.to_json()))))
    fresh.load_state_dict(twice.state_dict())
    with torch.no_grad():
        for image in images():
            assert error(once, again, keep, image) < 1e-9
            assert torch.equal(fresh(image), twice(image))


_APPLY = """
import importlib, json, sys
import torch
import drc
image = torch.load(sys.argv[1] + "/image.pt", weights_only=True)
found = {}
for where, name in json.loads(sys.argv[2]):
    model = getattr(importlib.import_module(where), name)()
    with torch.no_grad():
        found[name] = drc.apply(model, sys.argv[1] + "/" + name + ".safetensors")(image)
torch.save(found, sys.argv[1] + "/outputs.pt")
"""


def test_saved_networks_come_back_in_a_fresh_process(tmp_path: Path) -> None:
    image, expected = images()[0].float(), {}
    torch.save(image, tmp_path / "image.pt")
    networks = [network for network in ALL if network is not OldWeightNormed]  # torch copies none
    for network in networks:
        model, graph = traced(network)
        small = cut(model, graph, random_keep(graph)).float().eval()
        drc.save(small, tmp_path / f"{network.__name__}.safetensors")
        with torch.no_grad():
            expected[network.__name__] = small(image)
    names = json.dumps([(network.__module__, network.__name__) for network in networks])
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", _APPLY, str(tmp_path), names]
    subprocess.run(command, check=True, cwd=tests, env=_environment(tests))
    found = torch.load(tmp_path / "outputs.pt", weights_only=True)
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not different


def _environment(tests: Path) -> dict[str, str]:
    import os

    paths = os.pathsep.join((str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")))
    return {**os.environ, "PYTHONPATH": paths}


def test_halves_lose_equally_many_each_its_own() -> None:
    model, graph = traced(TwoWays)
    assert (graph["head"].size, graph["head"].blocks) == (8, 2)
    small = cut(model, graph, {"head": [[0, 2, 4], [1, 2, 7]]})
    step = get_cut(small)
    assert step is not None and step.kept["head.weight"][0] == [0, 2, 4, 9, 10, 15]
    assert step.kept["a.weight"][1] == [0, 2, 4] and step.kept["b.weight"][1] == [1, 2, 7]


def test_heads_keep_channels_of_their_own() -> None:
    model, graph = traced(Heads)
    group = next(g for g in graph.groups if g.name == "qkv")
    assert group.size == 6
    keep = [sorted({b % 3, 3 + b % 2, 5}) for b in range(group.blocks)]
    assert all(error(model, graph, {group.name: keep}, image) < 1e-9 for image in images())


def test_a_scale_per_head_stays_and_is_no_channel() -> None:
    _, graph = traced(HeadScales)
    stays = next(f for f in graph.frozen if f.name == "temperature")
    assert stays.size == 2 and stays.reason.startswith("counts heads")


@pytest.mark.parametrize("network", [RearrangedWidth, ReadWidth])
def test_what_reads_widths_can_be_compiled_traced_and_exported(network: type[Framed]) -> None:
    """Compiled code reads shapes past torch's modes, and must not read those of the cut."""
    model, graph = traced(network)
    small = cut(model, graph, random_keep(graph))
    image = images()[0]
    with torch.no_grad():
        expected = small(image)
        ways = (
            torch.compile(small, backend="eager"),
            torch.jit.trace(small, image),
            torch.export.export(small, (image,)).module(),
        )
        assert all(apart(way(image), expected) < 1e-12 for way in ways)


@pytest.mark.parametrize(
    ("name", "function"), [("view", torch.tensor_split), ("own_view", torch.Tensor.view)]
)
def test_a_size_op_takes_no_other_ones_name_or_function(name: str, function: Any) -> None:
    before = dict(ops.OPS), dict(ops.BY_FUNCTION)
    kind = type("Own", (type(ops.OPS["view"]),), {"name": name, "functions": (function,)})
    with pytest.raises(ValueError, match="'view'"):
        ops.register(kind)
    assert before == (ops.OPS, ops.BY_FUNCTION)


def test_the_recorder_leaves_no_trace_in_the_network() -> None:
    model, graph = traced(UnevenSplit)
    small = cut(model, graph, random_keep(graph))
    forwards = attached(small).values()
    assert forwards
    with SizeRecorder(Tracer(small, IdSpace()), small) as recorder:
        assert all(forward.recorder is recorder for forward in forwards)
    assert all(forward.recorder is None for forward in forwards)


def test_threads_run_one_cut_network_each_for_itself() -> None:
    model, graph = traced(UnevenSplit)
    small = cut(model, graph, random_keep(graph))
    image = images()[0]
    with torch.no_grad():
        expected = small(image).detach()
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(out, expected) for out in pool.map(small, [image] * 40))


def test_only_where_a_cut_must_show_a_dense_width_does_it() -> None:
    """`x.shape` in a reshape is right after a cut; a scale computed from it is not."""
    _, graph = traced(SIZED[-1])
    assert not [call for call in graph.calls if call.op == "shape"]
    _, graph = traced(ReadWidth)
    assert [call for call in graph.calls if call.op == "shape"]


def test_two_cuts_compose() -> None:
    model, graph = traced(UnevenSplit)
    first = {"head": list(range(40)), "head#2": list(range(2, 16))}
    once = cut(model, graph, first)
    again = trace(once)
    twice = cut(once, again, {"head": list(range(5, 30)), "head#2": list(range(9))})
    at_once = cut(model, graph, {"head": list(range(5, 30)), "head#2": list(range(2, 11))})
    with torch.no_grad():
        assert all(apart(twice(image), at_once(image)) < 1e-12 for image in images())
    assert get_cut(twice) == get_cut(at_once)

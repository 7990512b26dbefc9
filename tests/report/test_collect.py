"""The figures of a report come from the networks, and no network is changed."""

from __future__ import annotations

import pytest
import torch

from drc.evaluation.benchmark import evaluate
from drc.networks.registry import build
from drc.report.collect import INITIAL_WEIGHTS, Networks, Provenance, collect
from drc.store.plan import Budget, GroupWidth, Plan, fingerprint

LR = (32, 32)


def _params(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.manual_seed(0)
    dense = build("drn_tiny", 4)
    count = len(dense.up_blocks) * 9 + len(dense.down)
    narrow = [4] * count
    return Networks(dense, build("drn_tiny", 4, narrow), build("drn_tiny", 4, narrow))


@pytest.fixture(scope="module")
def plan(networks) -> Plan:
    before, after = _params(networks.before), _params(networks.after)
    budget = Budget(kind="params", ratio=0.3, before=before, limit=before, predicted=after)
    return Plan(
        model="drn_tiny",
        scale=4,
        base_checksum=fingerprint(networks.before),
        strategy="uniform",
        groups={"down.0": GroupWidth(keep=4, of=8)},
        budget=budget,
        seed=0,
        notes=["a remark of the search"],
    )


@pytest.fixture(scope="module")
def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.rand(3, 16, 20, generator=generator), torch.rand(3, 64, 80, generator=generator))
        for _ in range(2)
    ]


def _provenance(weights: str = "as passed in") -> Provenance:
    return Provenance(
        "drc.compress", weights, "l1", "8 crops", "5 steps", {"search": {"seconds": 1.0}}
    )


def test_figures_come_from_the_networks(networks, plan, pairs):
    checksums = [fingerprint(m) for m in (networks.before, networks.pruned, networks.after)]
    report = collect(
        networks, plan, _provenance(), test=iter(pairs), lr_size=LR, runs=1, device="cpu"
    )
    assert report.before.params == _params(networks.before)
    assert report.after.params == _params(networks.after)
    assert report.before.macs > report.after.macs
    assert report.lr_size == LR
    assert report.before.psnr == pytest.approx(evaluate(networks.before, pairs, device="cpu").psnr)
    assert report.pruned_only.psnr == pytest.approx(
        evaluate(networks.pruned, pairs, device="cpu").psnr
    )
    assert report.after.ssim == pytest.approx(evaluate(networks.after, pairs, device="cpu").ssim)
    assert report.latency is not None and report.latency.device == "cpu"
    assert report.counters.macs.startswith("fvcore")
    assert report.plan.groups == {"down.0": (4, 8)}
    assert report.notes == ["a remark of the search"]
    assert report.recovered
    assert checksums == [fingerprint(m) for m in (networks.before, networks.pruned, networks.after)]


def test_a_psnr_without_bound_is_not_reported(networks, plan, pairs):
    with torch.no_grad():
        equal = [(lr, networks.before.eval()(lr[None] * 255)[-1][0] / 255) for lr, _ in pairs]
    report = collect(networks, plan, _provenance(), test=equal, lr_size=LR, runs=0, device="cpu")
    assert report.before.psnr is None and report.after.psnr is not None
    assert report.before.ssim == pytest.approx(1)


def test_without_recovery_after_is_the_pruned_network(networks, plan, pairs):
    bare = Networks(networks.before, networks.pruned)
    report = collect(
        bare, plan, _provenance(INITIAL_WEIGHTS), test=pairs, lr_size=LR, runs=0, device="cpu"
    )
    assert not report.recovered
    assert (report.after.psnr, report.after.ssim) == (
        report.pruned_only.psnr,
        report.pruned_only.ssim,
    )
    assert any("no recovery yet" in note for note in report.notes)
    assert INITIAL_WEIGHTS in report.notes


def test_what_is_not_wanted_is_not_measured(networks, plan):
    report = collect(networks, plan, _provenance(), test=None, lr_size=LR, runs=0, device="cpu")
    assert (report.before.psnr, report.before.latency_ms, report.latency) == (None, None, None)
    assert report.data.images == []
    assert "not measured" in report.data.test

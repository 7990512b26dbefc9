"""Latency: warm, interleaved in alternating order, the median, and the network given back."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from drc.core.errors import UsageError
from drc.evaluation.latency import latency, pass_times


class Clock:
    """A time that passes only while a network runs, whatever else the machine does."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.order = ""

    def __call__(self) -> float:
        return self.seconds


class Slow(nn.Module):
    """Takes known times by a clock, one after the other, and notes every pass there."""

    def __init__(self, name: str, clock: Clock, *milliseconds: float) -> None:
        super().__init__()
        self.name, self.clock, self.delays = name, clock, iter(milliseconds)

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.clock.order += self.name
        self.clock.seconds += next(self.delays) / 1000
        return x


def test_order_warm_up_and_median() -> None:
    clock = Clock()
    models = {
        "a": Slow("a", clock, 900, 90, 2, 2, 2, 2),
        "b": Slow("b", clock, 900, 90, 20, 400, 30, 50),
        "c": Slow("c", clock, 900, 90, 1, 1, 1, 1),
    }
    results = latency(models, (8, 10), runs=4, device="cpu", clock=clock)
    assert clock.order == "aabbcc" + "abc" + "cba" + "abc" + "cba"
    assert list(results) == ["a", "b", "c"]
    medians = [result.median_ms for result in results.values()]
    assert medians == pytest.approx([2, 40, 1])  # the cold passes do not count
    for result in results.values():
        assert result.runs == 4
        assert result.lr_size == (8, 10)
        assert result.device == "cpu"
        assert result.threads == torch.get_num_threads()
    assert all(model.training for model in models.values())


def test_times_are_those_of_the_rounds() -> None:
    clock = Clock()
    models = {"one": Slow("a", clock, 0, 0, 20, 400, 40)}
    found = pass_times(models, (4, 4), runs=3, device=torch.device("cpu"), clock=clock)
    assert found["one"] == pytest.approx([20, 400, 40])


def test_fewer_macs_take_less_time() -> None:
    threads = torch.get_num_threads()
    models = {f"x{widen}": nn.Conv2d(3, 64 * widen, 3) for widen in (1, 16)}
    try:
        torch.set_num_threads(1)  # whose own time leaves out that of other programs
        results = latency(models, (64, 64), runs=5, device="cpu", clock=time.thread_time)
    finally:
        torch.set_num_threads(threads)
    assert results["x1"].median_ms < results["x16"].median_ms


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match="at least 1 run, got 0"):
        latency({"a": nn.Identity()}, runs=0, device="cpu")
    with pytest.raises(UsageError, match="not a device"):
        latency({"a": nn.Identity()}, device="nothing")

"""Latency: warm, interleaved in alternating order, the median, and the network given back."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from torch import Tensor, nn

from drc.core.errors import UsageError
from drc.evaluation.latency import latency


class Sleeper(nn.Module):
    """Notes every pass and takes a known time, the first time much longer."""

    def __init__(self, name: str, milliseconds: float, log: list[str]) -> None:
        super().__init__()
        self.name = name
        self.milliseconds = milliseconds
        self.log = log

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        cold = self.name not in self.log
        self.log.append(self.name)
        time.sleep((200 if cold else self.milliseconds) / 1000)
        return x


def test_order_warm_up_and_median() -> None:
    log: list[str] = []
    models = {name: Sleeper(name, ms, log) for name, ms in {"a": 2, "b": 30, "c": 2}.items()}
    results = latency(models, (8, 10), runs=4, device="cpu")
    assert "".join(log) == "aabbcc" + "abc" + "cba" + "abc" + "cba"
    assert list(results) == ["a", "b", "c"]
    assert 2 <= results["a"].median_ms < results["b"].median_ms
    assert 30 <= results["b"].median_ms < 200  # the cold passes do not count
    for result in results.values():
        assert result.runs == 4
        assert result.lr_size == (8, 10)
        assert result.device == "cpu"
        assert result.threads == torch.get_num_threads()
    assert all(model.training for model in models.values())


def test_fewer_macs_take_less_time() -> None:
    models = {f"x{widen}": nn.Conv2d(3, 64 * widen, 3) for widen in (1, 16)}
    results = latency(models, (64, 64), runs=5, device="cpu")
    assert results["x1"].median_ms < results["x16"].median_ms


def test_median_is_taken_over_the_runs() -> None:
    class Steps(nn.Module):
        """Two warm passes, then 20, 400, 40 ms."""

        def __init__(self) -> None:
            super().__init__()
            self.delays = iter([0, 0, 20, 400, 40])

        def forward(self, x: Tensor) -> Tensor:
            time.sleep(next(self.delays) / 1000)
            return x

    result = latency({"steps": Steps()}, (4, 4), runs=3, device="cpu")["steps"]
    assert 40 <= result.median_ms < statistics.mean([20, 400, 40])


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match="at least 1 run, got 0"):
        latency({"a": nn.Identity()}, runs=0, device="cpu")
    with pytest.raises(UsageError, match="not a device"):
        latency({"a": nn.Identity()}, device="nothing")

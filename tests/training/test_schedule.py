"""Learning rate, weight average and the random streams against hand-worked values."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from drc.core.randomness import RandomState, RandomStream, isolated
from drc.settings import RecoverySettings
from drc.training.schedule import averaged, learning_rate


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def rates_of(**values: object) -> list[float]:
    settings = RecoverySettings(**values)
    return [learning_rate(step, settings) for step in range(settings.steps)]


def test_learning_rate_rises_peaks_and_falls_to_its_floor() -> None:
    rates = rates_of(steps=101, lr=1.0, warmup=4, floor=0.01)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert sorted(rates[4:], reverse=True) == rates[4:]
    assert rates[52] == pytest.approx(0.01 + 0.99 / 2)
    assert rates[-1] == pytest.approx(0.01)


def test_learning_rate_falls_in_steps_at_the_milestones() -> None:
    rates = rates_of(steps=10, lr=1.0, warmup=2, schedule="step", milestones=(0.5, 0.8), gamma=0.1)
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_a_short_run_still_reaches_its_peak(steps: int) -> None:
    rates = rates_of(steps=steps, lr=2e-4, warmup=20)
    assert max(rates) == pytest.approx(2e-4)
    assert min(rates) > 0


def test_ema_warms_up_and_then_keeps_its_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = averaged(model, 0.3)
    nn.init.constant_(model.weight, 1.0)
    # Decays of the first updates: 2/11, 3/12, then 0.3 for good.
    expected = 0.0
    for decay in (2 / 11, 3 / 12, 0.3, 0.3):
        average.update_parameters(model)
        expected = decay * expected + (1 - decay)
        assert average.module.weight.item() == pytest.approx(expected)


def test_ema_copies_buffers_and_leaves_frozen_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model[0].bias.requires_grad_(False)
    average = averaged(model, 0.9)
    bias = model[0].bias.clone()
    model.train()(torch.rand(2, 3, 8, 8) + 5)
    average.update_parameters(model)
    assert torch.equal(average.module[1].running_mean, model[1].running_mean)
    assert int(average.module[1].num_batches_tracked) == 1
    assert torch.equal(average.module[0].bias, bias)


def test_ema_without_decay_is_the_network() -> None:
    model = nn.Conv2d(3, 3, 3)
    average = averaged(model, 0.0)
    with torch.no_grad():
        model.weight.mul_(1.7)
    average.update_parameters(model)
    assert torch.equal(average.module.weight, model.weight)


def test_ema_state_restores_exactly() -> None:
    model = nn.Conv2d(3, 3, 3)
    first = averaged(model, 0.99)
    with torch.no_grad():
        model.weight.add_(1)
    first.update_parameters(model)
    second = averaged(nn.Conv2d(3, 3, 3), 0.99)
    second.load_state_dict(first.state_dict())
    for average in (first, second):
        average.update_parameters(model)
    assert torch.equal(first.module.weight, second.module.weight)


def test_a_random_state_survives_a_file(tmp_path) -> None:
    random.gauss(0, 1), np.random.randn()
    torch.save(vars(RandomState.capture()), tmp_path / "state.pt")
    expected = draw()
    plain = torch.load(tmp_path / "state.pt", weights_only=True)
    RandomState(**plain).restore()
    assert draw() == expected


def test_an_isolated_block_gives_the_states_back() -> None:
    state = RandomState.capture()
    expected = draw()
    state.restore()
    with isolated(7):
        inside = draw()
    assert draw() == expected
    with isolated(7):
        assert draw() == inside


def test_a_stream_is_independent_of_what_others_draw() -> None:
    first, second = RandomStream(3), RandomStream(3)
    values = []
    for stream, disturbance in ((first, 0), (second, 5)):
        for _ in range(3):
            torch.rand(disturbance)
            with stream.active():
                values.append(draw())
    assert values[:3] == values[3:]
    assert len(set(values)) == 3

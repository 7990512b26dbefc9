"""What depends on the step alone: the learning rate, and how fast the average of weights moves."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from drc.settings import RecoverySettings

_Tensors = tuple[Tensor, ...] | list[Tensor]

_LONGEST_WARMUP = 0.2  # of the run, so that a short run still trains at its peak


def learning_rate(step: int, settings: RecoverySettings) -> float:
    """The rate of step `step` (from 0): a linear rise, then half a cosine down, or steps down.

    It depends on nothing but its arguments, so a resumed run needs no scheduler state.

    Args:
        step: 0 to `settings.steps - 1`.
        settings: length of the run, peak rate, warm-up (a fifth of the run at most) and schedule.

    Returns:
        The learning rate. Of a cosine the last step's is `floor * lr`; the schedule `step`
        multiplies it by `gamma` at each of the milestones, fractions of the run.
    """
    steps, peak = settings.steps, settings.lr
    warmup = min(settings.warmup, int(steps * _LONGEST_WARMUP))
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if settings.schedule == "step":
        passed = sum(step >= milestone * steps for milestone in settings.milestones)
        return peak * settings.gamma**passed
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    half = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (settings.floor + (1 - settings.floor) * half)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a network's parameters; buffers are the latest.

    Update n, from 1, has the decay `min(decay, (1 + n) / (10 + n))`, so that the average forgets
    the starting weights within a short run.

    Args:
        model: the network to follow; the average starts at its weights.
        decay: the largest decay, in 0..1; at 0 the average is the network itself.
    """

    def move(slow: _Tensors, fast: _Tensors, updates: Tensor | int) -> None:
        count = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(slow, fast, updates)

    average = AveragedModel(model, multi_avg_fn=move)
    average.update_parameters(model)  # the first one only copies
    return average

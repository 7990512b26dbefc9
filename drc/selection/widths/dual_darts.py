"""The channel-number search of the DRC paper (Guo et al., arXiv 2207.07929), on any network.

Every group has six candidate widths. Their softmax weights mix masks over the channels in order
of L1 norm, and are learned by DARTS (Liu et al., ICLR 2019): in turn, the weights are updated on
one half of the calibration data, and the logits of the widths on the other, to minimise the dual
regression loss. The rates that settings do not give are those of the official code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from drc.core.errors import TrainingError, UsageError
from drc.networks.copying import copy_of
from drc.selection.crops import Batch, drawn
from drc.selection.gates import regression_loss
from drc.selection.widths.allocate import allocate_widths
from drc.selection.widths.base import Problem, Solution, register
from drc.selection.widths.uniform import common_share
from drc.selection.widths.width_masks import WidthMasks

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The candidate widths, as parts of what the ratio leaves of a group."""

_SHARE_STEP = 0.01
_MOMENTUM, _DECAY, _LARGEST_GRADIENT = 0.9, 3e-4, 5.0
_ARCH_BETAS, _ARCH_DECAY = (0.5, 0.999), 1e-3
_PROBE = 0.01  # length of the step over which the second order takes a finite difference

Loss = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""Of weights and logits."""


@register("dual_darts")
def dual_darts(problem: Problem) -> Solution:
    """The most probable candidate widths after the search that together meet the budget.

    That is the arg-max of every group where it fits the limit within the tolerance, as it often
    does by the choice of the candidates. Where it does not, the widths are those of the largest
    product of probabilities among the plans that do.

    Raises:
        TrainingError: the loss is not finite.
        UsageError: there are not two calibration crops.
        DataError: the calibration crops differ in size.
    """
    candidates = candidate_widths(problem)
    logits = WidthSearch(problem, candidates).run()
    losses = [-torch.log_softmax(logit.detach().double(), 0).cpu().numpy() for logit in logits]
    return Solution(allocate_widths(replace(problem, options=candidates), losses))


def candidate_widths(problem: Problem) -> list[np.ndarray]:
    """Per group, in graph order, its candidates among the options, ascending, each once.

    They are `SHARES` of `1 - ratio`. The paper searches the inner widths of blocks, of which the
    cost is a linear function, and leaves the streams between blocks dense; the streams are here
    the groups whose widths multiply with those of others. Where the budget cannot be met so, they
    have candidates too, and `1 - ratio`, which would then overshoot, gives way to the share of
    all groups that meets the budget. Where rounding keeps even the widest candidates under the
    budget, the share is raised until it does not.
    """
    streams = problem.cost.meeting_groups()
    everywhere = np.zeros(0, int)
    for share, dense in (
        (1 - problem.settings.ratio, streams),
        (common_share(problem), everywhere),
    ):
        found = _aimed(problem, share, dense)
        if problem.cost(np.asarray([widths[0] for widths in found])) <= problem.limit:
            break
    return found


def _aimed(problem: Problem, share: float, dense: np.ndarray) -> list[np.ndarray]:
    """Candidates for the least share, from the given one on, that can fill the budget."""
    found: list[np.ndarray] = []
    for raised in np.append(np.arange(share, 1, _SHARE_STEP), 1):
        found = [_nearest(option, raised) for option in problem.options]
        for group in dense:
            found[group] = problem.options[group][-1:]
        if problem.cost(np.asarray([widths[-1] for widths in found])) >= problem.limit:
            break
    return found


def _nearest(option: np.ndarray, share: float) -> np.ndarray:
    """The options nearest to `SHARES` of `share` of the last one, rounded down; ties go down."""
    wanted = np.floor(option[-1] * share * np.asarray(SHARES) + 1e-9)
    return np.unique(option[np.abs(option - wanted[:, None]).argmin(1)])


class WidthSearch:
    """The alternating updates, on a copy of the network."""

    def __init__(self, problem: Problem, candidates: Sequence[np.ndarray]) -> None:
        self.calibration, self.settings = problem.calibration, problem.settings
        if self.calibration.patches < 2:
            raise UsageError(
                "dual_darts updates weights and widths on different crops; set patches to 2 or more"
            )
        self.model = copy_of(self.calibration.model).eval()
        parameters = dict(self.model.named_parameters())
        # A network whose weights were all frozen for inference is searched like another.
        trained = {n: p for n, p in parameters.items() if p.requires_grad} or parameters
        self.names, self.weights = list(trained), [p.requires_grad_() for p in trained.values()]
        self.tensors = {**parameters, **dict(self.model.named_buffers())}
        self.masks = WidthMasks(self.calibration, candidates)
        self.descent = torch.optim.SGD(
            self.weights, self.settings.darts_lr, momentum=_MOMENTUM, weight_decay=_DECAY
        )
        self.arch_descent = torch.optim.Adam(
            self.masks.logits,
            self.settings.darts_arch_lr,
            betas=_ARCH_BETAS,
            weight_decay=_ARCH_DECAY,
        )

    def run(self) -> list[Tensor]:
        """All steps; returns the logits of every group."""
        settings, crops = self.settings, list(self.calibration.crops())
        generator = torch.Generator().manual_seed(self.calibration.seed)
        train, val = (drawn(crops[i::2], settings.darts_batch, generator) for i in range(2))
        for step in range(settings.darts_steps):
            try:
                loss = self.step(next(train), next(val))
            except TrainingError:
                raise TrainingError(
                    f"the loss of dual_darts is not finite at step {step + 1}; lower "
                    "search.darts_lr, or use another strategy"
                ) from None
            if self.calibration.progress:
                self.calibration.progress("search", step + 1, settings.darts_steps, {"loss": loss})
        return self.masks.logits

    def step(self, train: Batch, val: Batch) -> float:
        """Update the logits, then the weights; returns the loss on the training batch."""
        for logit, gradient in zip(self.masks.logits, self.arch_gradient(train, val), strict=True):
            logit.grad = gradient
        self.arch_descent.step()
        loss = self.loss(train)(self.weights, self.masks.logits)
        gradients = torch.autograd.grad(loss, self.weights, materialize_grads=True)
        self.calibration.passes.add(len(train[0]))
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.weights, _LARGEST_GRADIENT)
        self.descent.step()
        return loss.item()

    def arch_gradient(self, train: Batch, val: Batch) -> list[Tensor]:
        """The gradient of the validation loss by the logits, of the order asked for."""
        logits = self.masks.logits
        self.calibration.passes.add(len(val[0]))
        if self.settings.darts_order == 1:
            return list(torch.autograd.grad(self.loss(val)(self.weights, logits), logits))
        self.calibration.passes.add(3 * len(train[0]))
        drift = [_MOMENTUM * self._velocity(w) + _DECAY * w.detach() for w in self.weights]
        return unrolled_gradient(
            self.loss(train), self.loss(val), self.weights, logits, self.settings.darts_lr, drift
        )

    def loss(self, batch: Batch) -> Loss:
        """The dual regression loss on a batch, as a function of weights and logits."""

        def loss(weights: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
            own = dict(zip(self.names, weights, strict=True))
            masked = self.masks.masked({**self.tensors, **own}, logits)
            lr, hr = batch
            outputs = functional_call(self.model, {**own, **masked}, (lr,))
            return regression_loss(self.calibration, outputs, lr, hr)

        return loss

    def _velocity(self, weight: Tensor) -> Tensor:
        velocity = self.descent.state[weight].get("momentum_buffer")
        return torch.zeros_like(weight) if velocity is None else velocity


def unrolled_gradient(
    train: Loss,
    val: Loss,
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    rate: float,
    drift: Sequence[Tensor],
) -> list[Tensor]:
    """The second-order gradient of DARTS: of the validation loss one training step ahead.

    With `w' = w - rate * (dL_train/dw + drift)`, the gradient by the logits `a` of `L_val(w', a)`
    is `dL_val/da - rate * d2L_train/(da dw) dL_val/dw'`. The product with the second derivative
    is a central difference of `dL_train/da` over `w +- eps * dL_val/dw'`, where
    `eps = 0.01 / |dL_val/dw'|` (Liu et al., ICLR 2019, eq. 7 and 8). It takes four passes.

    Args:
        train: the loss that the weights minimise.
        val: the loss that the logits minimise.
        weights: of the network; leaves.
        logits: leaves.
        rate: learning rate of the step ahead.
        drift: what the step adds to the gradient: momentum and weight decay; one per weight.

    Returns:
        One gradient per logit tensor.
    """
    slopes = torch.autograd.grad(train(weights, logits), weights, materialize_grads=True)
    ahead = [
        (w.detach() - rate * (slope + extra)).requires_grad_()
        for w, slope, extra in zip(weights, slopes, drift, strict=True)
    ]
    found = torch.autograd.grad(val(ahead, logits), [*logits, *ahead], materialize_grads=True)
    direct, pulls = found[: len(logits)], found[len(logits) :]
    length = torch.stack([pull.norm() for pull in pulls]).norm().item()
    if length == 0:
        return list(direct)
    eps = _PROBE / length
    above, below = (
        torch.autograd.grad(train(_moved(weights, pulls, step), logits), logits)
        for step in (eps, -eps)
    )
    sides = zip(direct, above, below, strict=True)
    return [d - rate * (plus - minus) / (2 * eps) for d, plus, minus in sides]


def _moved(weights: Sequence[Tensor], along: Sequence[Tensor], step: float) -> list[Tensor]:
    pairs = zip(weights, along, strict=True)
    return [weight.detach() + step * direction for weight, direction in pairs]

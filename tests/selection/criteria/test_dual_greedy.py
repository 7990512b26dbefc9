"""The paper's greedy ranking, against the same choice worked out in plain numbers."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from helpers.blocked import Heads
from helpers.networks import Residual, Shuffled, conv
from torch import Tensor, nn

import drc
from drc.core.errors import DataError, TrainingError
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.selection.calibration import Calibration, Scores
from drc.selection.criteria.base import Ranking, keep_best, score
from drc.selection.criteria.dual_greedy import recorded
from drc.selection.crops import drawn, in_turn
from drc.settings import PruneSettings
from drc.training.losses import dual_regression_loss

pytestmark = pytest.mark.usefixtures("one_thread")

DICTIONARY = [[1.0, 0.1, 0.0], [1.0, 0.0, 0.1], [0.0, 1.0, 0.0], [0.6, 0.6, 0.6]]
READ = [1.0, 0.9, -0.8, 0.2]
PIXELS = [[0.9, 0.1, 0.4], [0.2, 0.8, 0.5], [0.7, 0.3, 0.1], [0.1, 0.2, 0.9]]
TRUTH = [0.3, -0.4, 0.2, 0.1]


class OneOutput(nn.Module):
    """Channel c of pixel p is h = DICTIONARY[c] . PIXELS[p]; red is the sum of READ[c] * h."""

    scale = 1

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 3, 1, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(DICTIONARY).view(4, 3, 1, 1))
            self.tail.weight.zero_()
            self.tail.weight[0, :, 0, 0] = torch.tensor(READ)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.head(x))


def one_image() -> tuple[Tensor, Tensor]:
    lr = torch.tensor(PIXELS).T.reshape(1, 3, 2, 2)
    hr = torch.zeros(1, 3, 2, 2)
    hr[0, 0] = torch.tensor(TRUTH).view(2, 2)
    return lr, hr


def chosen_by_hand(steps: int, rate: float, picks: int) -> tuple[list[int], list[float]]:
    """The order of choice and the gradients before the last, in lists of numbers.

    Green and blue are right whatever is chosen, so that only red counts; the losses are means over
    3 colours and 4 pixels.
    """
    h = [[sum(a * b for a, b in zip(row, x, strict=True)) for x in PIXELS] for row in DICTIONARY]
    dense = [sum(READ[c] * h[c][p] for c in range(4)) for p in range(4)]
    weights, order, gradient = [0.0] * 4, [], [0.0] * 4

    def slopes() -> list[float]:
        red = [sum(weights[c] * h[c][p] for c in range(4)) for p in range(4)]
        by_red = [
            2 * (red[p] - dense[p]) / 12 + ((red[p] > TRUTH[p]) - (red[p] < TRUTH[p])) / 12
            for p in range(4)
        ]
        return [sum(by_red[p] * h[c][p] for p in range(4)) for c in range(4)]

    for _ in range(picks):
        gradient = slopes()
        best = max((c for c in range(4) if c not in order), key=lambda c: abs(gradient[c]))
        order.append(best)
        weights[best] = READ[best]
        for _ in range(steps):
            step = [s if c in order else 0.0 for c, s in enumerate(slopes())]
            length = sum(s * s for s in step) ** 0.5
            norm = sum(w * w for w in weights) ** 0.5
            weights = [w - rate * norm / length * s for w, s in zip(weights, step, strict=True)]
    return order, [abs(g) for g in gradient]


def calibration(model: nn.Module, batches: list, **options: object) -> Calibration:
    count = sum(len(lr) for lr, _ in batches)
    return Calibration(model, trace(model, batches[0][0]), batches, patches=count, **options)


def ranked(data: Calibration, widths: dict | None = None, **settings: object) -> Scores:
    return score("dual_greedy", data, Ranking(widths, PruneSettings(**settings)))


@pytest.mark.parametrize(("steps", "rate"), [(0, 0.1), (1, 0.1), (3, 0.3)])
def test_order_of_choice_by_hand(steps: int, rate: float) -> None:
    data = calibration(OneOutput().eval(), [one_image()])
    order, _ = chosen_by_hand(steps, rate, 4)
    scores = ranked(data, greedy_steps=steps, greedy_lr=rate)["head"][0]
    assert scores.tolist() == [4 - order.index(c) for c in range(4)]
    assert data.passes.count == 4 * (1 + steps)


def test_the_steps_matter_in_the_case_worked_by_hand() -> None:
    orders = {tuple(chosen_by_hand(*case, 4)[0]) for case in ((0, 0.1), (1, 0.1), (3, 0.3))}
    assert len(orders) > 1


def test_channels_left_over_rank_by_their_last_gradient() -> None:
    data = calibration(OneOutput().eval(), [one_image()])
    order, gradient = chosen_by_hand(1, 0.1, 2)
    scores = ranked(data, {"head": 2}, greedy_steps=1, greedy_lr=0.1)["head"][0]
    assert [scores[c] for c in order] == [4, 3]
    rest = [c for c in range(4) if c not in order]
    expected = [gradient[c] / (1 + 2 * max(gradient)) for c in rest]
    assert [scores[c] for c in rest] == pytest.approx(expected, rel=1e-5)
    assert data.passes.count == 2 * 2


class Pair(nn.Module):
    """Two prunable layers in a row, so that the second is ranked behind a pruned first."""

    scale = 1

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 5), conv(5, 6), conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


def test_groups_follow_each_other_as_in_the_cut_networks() -> None:
    """With no refit, each choice is the largest gradient in a network whose earlier layer is cut
    and in which the weights of the channels not chosen are zero."""
    model = Pair().eval()
    lr, hr = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    data, widths = calibration(model, [(lr, hr)]), {"a": 2, "b": 3}
    scores = ranked(data, widths, greedy_steps=0)
    with torch.no_grad(), recorded(model, ["b", "c"]) as dense:
        model(lr)
    keep: dict[str, list[int]] = {}
    for name, reader in (("a", "b"), ("b", "c")):
        small = cut(model, data.graph, keep) if keep else copy.deepcopy(model)
        weight = small.get_submodule(reader).weight
        full, chosen = weight.detach().clone(), []
        for _ in range(widths[name]):
            with torch.no_grad():
                weight.zero_()
                weight[:, chosen] = full[:, chosen]
            with recorded(small, [reader]) as found:
                loss = dual_regression_loss(small(lr), lr, hr, None, 1.0)
            loss = loss + (found[reader][0] - dense[reader][0]).square().mean()
            (gradient,) = torch.autograd.grad(loss, weight)
            norms = gradient.square().sum((0, 2, 3)).sqrt()
            norms[chosen] = -1
            chosen.append(int(norms.argmax()))
        order = np.argsort(-scores[name][0], kind="stable")[: len(chosen)].tolist()
        assert order == chosen
        keep[name] = sorted(chosen)
    assert data.passes.count == 2 * (2 + 3)


def test_it_keeps_what_carries_the_image() -> None:
    """Half of the channels are read with weights a hundred times smaller, in mixed order."""
    model = Shuffled().eval()
    useful = [1, 2, 5, 7]
    with torch.no_grad():
        for c in set(range(8)) - set(useful):
            model.up.weight[:, c] *= 0.01
            model.head.weight[c] *= 0.01
            model.head.bias[c] *= 0.01
    lr = torch.rand(2, 3, 8, 8)
    data = calibration(model, [(lr, model(lr).detach())])
    widths = {g.name: 4 if g.name == "head" else g.size for g in data.graph.groups}
    scores = ranked(data, widths)
    assert keep_best(scores, widths)["head"] == [useful]
    assert set(widths.values()) == {4, 6}
    assert (scores["up"] == 1).all()


@pytest.mark.parametrize("network", [Residual, Heads])
def test_every_block_chooses_for_itself_and_the_model_stays(network: type[nn.Module]) -> None:
    model = network().eval()
    batches = [(torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8))]
    state = copy.deepcopy(model.state_dict())
    found = []
    for _ in range(2):
        calls: list[tuple] = []
        data = calibration(model, batches, progress=lambda *call, calls=calls: calls.append(call))
        widths = {g.name: max(1, g.size // 2) for g in data.graph.groups}
        found.append(ranked(data, widths, greedy_batch=2))
    picks = sum(widths.values())
    assert [call[:3] for call in calls] == [("ranking", n + 1, picks) for n in range(picks)]
    for group in data.graph.groups:
        first, second = (scores[group.name] for scores in found)
        assert np.array_equal(first, second)
        for row in first:
            best = sorted(row)[-widths[group.name] :]
            assert best == list(range(group.size - len(best) + 1, group.size + 1))
            assert row.min() < 1
    assert max(group.blocks for group in data.graph.groups) == (1 if network is Residual else 4)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_each_choice_of_widths_is_ranked_anew() -> None:
    data = calibration(Pair().eval(), [(torch.rand(1, 3, 6, 6), torch.rand(1, 3, 6, 6))])
    for width in (2, 3):
        scores = ranked(data, {"a": width, "b": width})
        assert scores is ranked(data, {"b": width, "a": width})
        assert all((row >= 1).sum() == width for row in (scores["a"][0], scores["b"][0]))


def test_batches_of_crops() -> None:
    crops = [
        (torch.full((1, 1, 1, 1), float(i)), torch.full((1, 1, 2, 2), float(i))) for i in range(5)
    ]
    fixed = [lr.flatten().tolist() for lr, _ in itertools.islice(in_turn(crops, 2), 4)]
    assert fixed == [[0, 1], [2, 3], [4], [0, 1]]
    batches = itertools.islice(drawn(crops, 2, torch.Generator().manual_seed(0)), 4)
    rounds = [lr.flatten().tolist() for lr, _ in batches]
    for first, second in (rounds[:2], rounds[2:]):
        assert len({*first, *second}) == 4
    (whole,) = itertools.islice(drawn(crops, 9, torch.Generator().manual_seed(0)), 1)
    assert sorted(whole[0].flatten().tolist()) == [0, 1, 2, 3, 4]


def test_errors_say_what_to_do() -> None:
    nan, fine = torch.full((1, 3, 6, 6), torch.nan), torch.rand(1, 3, 6, 6)
    data = calibration(Pair().eval(), [(fine, nan)])
    with pytest.raises(TrainingError, match=r"at a; lower prune\.greedy_lr"):
        score("dual_greedy", data)
    data = calibration(Pair().eval(), [(fine, fine), (torch.rand(1, 3, 8, 8),) * 2])
    with pytest.raises(DataError, match="6x6 and 8x8"):
        score("dual_greedy", data)


def test_drn_tiny_is_pruned_by_it() -> None:
    model, dual = drc.create_model("drn_tiny", weights="default", dual=True)
    loader = [(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 32, 32))]
    plan = drc.search(
        model, loader, settings=drc.SearchSettings(patches=1, strategy="uniform"), dual=dual
    )
    inner = {"down.0.dual_module.0.0": 3, "up_blocks.1.2.body.0": 4}
    groups = {
        name: width.model_copy(update={"keep": inner.get(name, width.of)})
        for name, width in plan.groups.items()
    }
    plan = plan.model_copy(update={"groups": groups})
    pruned = drc.prune(
        model, plan, loader, settings=drc.PruneSettings(importance="dual_greedy"),
        calibration=drc.SearchSettings(patches=1), dual=dual,
    )  # fmt: skip
    for name, width in inner.items():
        assert pruned.get_submodule(name).out_channels == width
    assert pruned.get_submodule("up_blocks.1.3.body.0").out_channels == 32

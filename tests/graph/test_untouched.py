"""Tracing and cutting change nothing of the user's: no weight, buffer, hook or random number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.blocked import Checkpointed, DataWritten, OldWeightNormed
from helpers.cutting import error, random_keep
from helpers.networks import Normed, Residual, conv
from helpers.sized import Framed, TorchTransformer, UnevenSplit
from torch import Tensor, nn

from drc.graph.surgery import cut
from drc.graph.trace import trace

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # the old weight_norm


class Counting(Framed):
    """Counts its calls and follows the mean of its features, also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(1, 16, 1, 1))

    def body(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean((0, 2, 3), keepdim=True))
        return x - self.mean


class Noisy(Framed):
    """Noise of one plane, scaled channel by channel, as in generators of textures."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1, 16, 1, 1))

    def body(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.randn(x.shape[0], 1, *x.shape[2:], dtype=x.dtype)


class Hooked(Framed):
    def __init__(self) -> None:
        super().__init__()
        self.head.register_forward_hook(double_output)

    def body(self, x: Tensor) -> Tensor:
        return x.tanh()


def double_output(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return 2 * output


NETWORKS = (
    Residual, Normed, UnevenSplit, TorchTransformer, Checkpointed, OldWeightNormed, DataWritten,
    Counting, Noisy, Hooked,
)  # fmt: skip


def everything(model: nn.Module) -> dict[str, Any]:
    """All that a network is, with copies of what may change in place."""
    found: dict[str, Any] = {"mode": [module.training for module in model.modules()]}
    for name, module in model.named_modules():
        found[f"{name}: attributes"] = sorted(module.__dict__)
        found[f"{name}: hooks"] = [
            sorted(hooks)
            for hooks in (
                module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
                module._state_dict_hooks,
            )
        ]  # fmt: skip
        forward = module.__dict__.get("forward")
        found[f"{name}: forward"] = id(forward) if forward is not None else None
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[f"{name}: value"] = tensor.detach().clone().numpy().tobytes()
        found[f"{name}: kind"] = (id(tensor), tensor.dtype, tensor.shape, tensor.requires_grad)
        found[f"{name}: grad"] = tensor.grad
    return found


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_the_model_is_left_as_it_was(network: type[nn.Module], training: bool) -> None:
    model = network().train(training)
    before, numbers = everything(model), torch.get_rng_state()
    cut(model, graph := trace(model), random_keep(graph))
    changed = [key for key, value in everything(model).items() if before[key] != value]
    assert not changed
    assert torch.equal(numbers, torch.get_rng_state())
    assert torch.backends.mha.get_fastpath_enabled() and torch.is_grad_enabled()


def test_what_a_given_input_is_stays() -> None:
    image = torch.rand(2, 3, 9, 8, requires_grad=True)
    before = image.detach().clone()
    trace(UnevenSplit(), image)
    assert image.requires_grad and image.grad is None and torch.equal(image.detach(), before)


def test_written_weights_keep_their_number_type() -> None:
    model = DataWritten().eval()
    small = cut(model, graph := trace(model), random_keep(graph))
    for network in (model, small):
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert network(torch.rand(1, 3, 8, 8)).dtype == torch.float32


def test_hooks_of_the_user_run_in_the_cut_network() -> None:
    model = Hooked().eval().double()
    graph = trace(model)
    keep = random_keep(graph)
    assert error(model, graph, keep, torch.rand(2, 3, 8, 8, dtype=torch.float64)) < 1e-10
    assert cut(model, graph, keep).head._forward_hooks


def test_a_forward_that_fails_leaves_nothing_behind() -> None:
    class Failing(Framed):
        def body(self, x: Tensor) -> Tensor:
            raise KeyError("no such thing")

    model = Failing().train()
    before = everything(model)
    with pytest.raises(Exception, match="no such thing"):
        trace(model, torch.rand(1, 3, 8, 8))
    assert everything(model) == before
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_network_whose_forward_draws_numbers_is_still_checked() -> None:
    """Noise must not excuse a difference between what is cut and what is masked."""

    class Averaging(Noisy):
        def body(self, x: Tensor) -> Tensor:
            return super().body(x - x.sum(1, keepdim=True) / x.shape[1])

    model = Averaging().eval().double()
    graph = trace(model)
    image, keep = torch.rand(1, 3, 8, 8, dtype=torch.float64), random_keep(graph)
    with torch.no_grad():
        model.scale.zero_()
    assert error(model, graph, keep, image) < 1e-9


def test_a_conv_without_a_stream_is_traced_in_any_number_type() -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 3)).to(dtype)
        assert [group.size for group in trace(model).groups] == [8]
        assert {p.dtype for p in model.parameters()} == {dtype}

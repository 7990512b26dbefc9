"""A graph holds beyond the inputs, widths and weights it was verified with; bad input is told."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from einops.layers.torch import Rearrange
from helpers.blocked import OldWeightNormed
from helpers.cutting import apart, error, gradients, images, random_keep, stuck
from helpers.networks import Plain, Residual, conv
from helpers.sized import Framed, TorchTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from drc.core.errors import ModelError
from drc.graph.inputs import Inputs, map_inputs
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.graph.verify import check


def ready(network: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return network().eval().double()


class BatchedHeads(Framed):
    """Heads merged into the batch, taken out again by a view that counts the batch itself."""

    def __init__(self) -> None:
        super().__init__(20)
        self.qkv, self.proj = nn.Linear(20, 60), nn.Linear(20, 20)

    def body(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (
            part.reshape(b, h * w, 2, -1).transpose(1, 2).reshape(b * 2, h * w, -1)
            for part in self.qkv(tokens).chunk(3, -1)
        )
        mixed = torch.bmm((torch.bmm(q, k.transpose(1, 2)) * 0.3).softmax(-1), v)
        mixed = mixed.view(-1, 2, h * w, 10).transpose(1, 2).reshape(-1, h * w, 20)
        return (tokens + self.proj(mixed)).transpose(1, 2).reshape(b, -1, h, w)


class Rotary(Framed):
    """Halves of every head change places while the heads are merged into the batch."""

    def __init__(self) -> None:
        super().__init__(20)
        self.value, self.proj = nn.Linear(20, 20), nn.Linear(20, 20)

    def body(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        v = self.value(x.flatten(2).transpose(1, 2))
        v = v.reshape(b, h * w, 2, -1).transpose(1, 2).reshape(b * 2, h * w, -1)
        v = torch.cat((-v[..., 5:].tanh(), v[..., :5]), -1)
        v = v.reshape(b, 2, h * w, -1).transpose(1, 2).reshape(b, h * w, -1)
        return self.proj(v).transpose(1, 2).reshape(b, -1, h, w)


@pytest.mark.parametrize("network", [BatchedHeads, Rotary], ids=lambda n: n.__name__)
@pytest.mark.parametrize("cuts", [1, 2])
def test_a_cut_verified_on_one_image_holds_for_a_batch(network: type[nn.Module], cuts: int) -> None:
    model = ready(network)
    graph = trace(model, torch.rand(1, 3, 8, 8, dtype=torch.float64))
    for seed in range(cuts - 1):
        model = cut(model, graph, random_keep(graph, seed))
        graph = trace(model, torch.rand(1, 3, 8, 8, dtype=torch.float64))
    for seed in range(4):
        for image in images():
            assert error(model, graph, random_keep(graph, seed), image) < 1e-9


class EqualSplits(Framed):
    """Information distillation in one forward: several splits of one kind."""

    def __init__(self) -> None:
        super().__init__(16, 18)
        self.a, self.b, self.c = conv(16, 16), conv(10, 16), conv(10, 6)

    def body(self, x: Tensor) -> Tensor:
        first, rest = self.a(x).split([6, 10], 1)
        second, rest = self.b(rest).split([6, 10], 1)
        return torch.cat((first, second, self.c(rest)), 1)


class EqualSlices(Framed):
    def __init__(self) -> None:
        super().__init__(16, 32)
        self.a, self.b = conv(16, 16), conv(16, 16)

    def body(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return torch.cat((a[:, :6].tanh(), a[:, 6:], b[:, :6].sigmoid(), b[:, 6:]), 1)


class MaybeResidual(Framed):
    """A residual that a coincidence of widths switches on."""

    def __init__(self) -> None:
        super().__init__(16, 24)
        self.widen = conv(16, 24)

    def body(self, x: Tensor) -> Tensor:
        y = self.widen(x)
        return x + y if x.shape == y.shape else y


def test_a_plan_whose_equal_widths_change_the_forward_is_refused() -> None:
    """Code that compares shapes takes another path at some widths: the last check sees it."""
    model = ready(MaybeResidual)
    graph = trace(model)
    keep = {name: list(range(12)) for name in ("head", "widen")}
    assert {group.name for group in graph.groups} >= keep.keys()
    if graph.calls:  # the forward is told the dense shapes, and takes the path of the dense network
        check(model, graph, keep, images()[0])
        return
    with pytest.raises(ModelError, match="not what it should be"):
        check(model, graph, keep, images()[0])


@pytest.mark.parametrize(
    ("network", "keep"),
    [
        (EqualSplits, {"a": range(3), "a#2": range(7), "b": range(5), "b#2": range(5)}),
        (EqualSlices, {"a": (0, 1, 2, 3, 10, 11), "b": (0, 1, 10, 11, 12, 13)}),
    ],
    ids=lambda case: case.__name__ if isinstance(case, type) else "",
)
def test_widths_that_come_out_equal_confuse_nothing(network: type[nn.Module], keep: dict) -> None:
    """Widths that differ in the verified patterns may well be equal in a plan."""
    model = ready(network)
    graph = trace(model)
    keep = {
        name: list(atoms) for name, atoms in keep.items() if name in [g.name for g in graph.groups]
    }
    assert all(error(model, graph, keep, image) < 1e-9 for image in images())


class Recomputed(Framed):
    """A method, not a module, is run again in the backward pass."""

    reentrant: bool | None = True

    def __init__(self) -> None:
        super().__init__(16, 16)
        self.middle = conv(16, 16)

    def body(self, x: Tensor) -> Tensor:
        x = self.middle(x)
        if self.reentrant is None:
            return self.halves(x)
        return checkpoint(self.halves, x, use_reentrant=self.reentrant)

    def halves(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, :6].tanh(), x[:, 6:]), 1)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_is_recomputed_has_the_same_gradients(reentrant: bool) -> None:
    model = ready(Recomputed)
    model.reentrant = reentrant
    small = cut(model, graph := trace(model), random_keep(graph))
    found = gradients(small, images()[0])
    small.reentrant = None
    plain = gradients(small, images()[0])
    assert all(torch.allclose(found[name], plain[name]) for name in plain)


class TwoInputs(nn.Module):
    """An image and a map of another kind, by position or by name; a list comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.map, self.tail = conv(3, 12), conv(2, 12), conv(24, 12)

    def forward(self, image: Tensor, extra: Tensor, *, scale: float = 1.0) -> list[Tensor]:
        both = torch.cat((self.image(image), F.relu(self.map(extra)) * scale), 1)
        return [F.pixel_shuffle(self.tail(both), 2), image]


def two_inputs(batch: int, size: int, named: bool) -> Inputs:
    image, extra = torch.rand(batch, 3, size, size), torch.rand(batch, 2, size, size)
    return {"extra": extra, "scale": 0.5, "image": image} if named else (image, extra)


@pytest.mark.parametrize("named", [False, True], ids=["tuple", "dict"])
def test_several_inputs(named: bool) -> None:
    model = ready(TwoInputs)
    graph = trace(model, map_inputs(Tensor.double, two_inputs(1, 8, named)))
    assert [group.size for group in graph.groups] == [12, 12] and not stuck(graph)
    other = map_inputs(Tensor.double, two_inputs(3, 11, named))
    assert error(model, graph, random_keep(graph), other) < 1e-10


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts(channels: int) -> None:
    model = nn.Sequential(conv(channels, 8), nn.ReLU(), conv(8, 4 * channels), nn.PixelShuffle(2))
    model = model.eval().double()
    graph = trace(model)
    assert [group.size for group in graph.groups] == [8] and not stuck(graph)
    for image in images(channels):
        assert error(model, graph, random_keep(graph), image) < 1e-10


class Statistics(nn.Module):
    """All that is computed over channels, in a network that exists in every width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head, self.tail = conv(3, width), conv(width, 3)
        self.tokens, self.groups = nn.LayerNorm(width), nn.GroupNorm(2, width)
        self.gate = conv(3, width, 1)
        self.map = conv(5, 1, 1)
        for norm in (self.tokens, self.groups):
            nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).softmax(1)
        x = self.groups(self.head(x)) * gate
        x = self.tokens(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        seen = (x.mean(1), x.amax(1), x.std(1), x.norm(dim=1), x.logsumexp(1))
        return self.tail(F.normalize(x, dim=1) * self.map(torch.stack(seen, 1)))


def test_statistics_are_those_of_a_network_built_narrow() -> None:
    """The reference here is the architecture itself, not the masked network."""
    model = ready(lambda: Statistics(16))
    graph = trace(model)
    assert not stuck(graph)
    keep = {
        g.name: [sorted((3 * i + b) % g.size for i in range(5)) for b in range(g.blocks)]
        for g in graph.groups
    }
    small = cut(model, graph, keep)
    narrow = Statistics(small.head.out_channels).eval().double()
    narrow.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert all(apart(small(image), narrow(image)) < 1e-12 for image in images())


def test_old_weight_norm_may_have_learnt_before() -> None:
    """Its forward leaves a computed weight behind, which torch refuses to copy."""
    model = ready(OldWeightNormed)
    model(images()[0]).sum().backward()
    graph = trace(model)
    model(images()[0]).sum().backward()
    assert error(model, graph, random_keep(graph), images()[1]) < 1e-9


def test_torchs_fused_layers_stay_right_without_gradients() -> None:
    model = ready(TorchTransformer)
    graph = trace(model)
    small = cut(model, graph, random_keep(graph))
    with torch.no_grad():
        fused = small(images()[0])
    assert apart(fused, small(images()[0])) < 1e-9


def test_a_cut_network_can_be_fine_tuned_and_cut_again() -> None:
    model = ready(Residual)
    graph = trace(model)
    small = cut(model, graph, random_keep(graph)).train()
    optimizer = torch.optim.Adam(small.parameters(), 1e-2)
    for image in images():
        optimizer.zero_grad()
        small(image).square().mean().backward()
        optimizer.step()
    small.eval()
    again = trace(small)
    assert error(small, again, random_keep(again, 3), images()[1]) < 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.jit.script(Plain()), "is a ScriptModule"),
        (lambda: Plain().to("meta"), "meta"),
        (lambda: nn.Sequential(nn.LazyConv2d(8, 3)), "run the network once on an image first"),
    ],
    ids=["scripted", "meta", "lazy"],
)
def test_what_cannot_be_traced_is_one_clear_line(make: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        trace(make())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inputs", [torch.rand(1, 5, 8, 8), 7, {"image": torch.rand(1, 3, 8, 8)}])
def test_wrong_inputs_are_one_clear_line(inputs: Any) -> None:
    with pytest.raises(ModelError, match="fails while being traced") as caught:
        trace(Plain(), inputs)
    assert "\n" not in str(caught.value)


def test_the_state_of_a_recurrent_layer_stays_and_its_inputs_can_go() -> None:
    class Recurrent(Framed):
        def __init__(self) -> None:
            super().__init__()
            self.memory = nn.GRU(16, 16, batch_first=True)

        def body(self, x: Tensor) -> Tensor:
            tokens = self.memory(x.flatten(2).transpose(1, 2))[0]
            return tokens.transpose(1, 2).reshape(x.shape)

    model = ready(Recurrent)
    graph = trace(model)
    assert [group.name for group in graph.groups] == ["head"]
    assert [f.name for f in graph.frozen if f.name.startswith("memory")] == ["memory"]
    image = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    assert error(model, graph, {"head": list(range(9))}, image) < 1e-9
    assert copy.deepcopy(graph).frozen == graph.frozen


class Likenesses(Framed):
    """Constants in the shape of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = conv(16, 16)

    def body(self, x: Tensor) -> Tensor:
        y = torch.where(x > 0, self.middle(x), torch.zeros_like(x))
        return y * torch.ones_like(y) + torch.full_like(y, 0.5)


class FixedFilter(Framed):
    """A filter repeated for every channel there is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.rand(1, 1, 3, 3))

    def body(self, x: Tensor) -> Tensor:
        kernel = self.kernel.repeat(x.shape[1], 1, 1, 1)
        return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


@pytest.mark.parametrize(
    "network",
    [
        Likenesses,
        pytest.param(
            FixedFilter,
            marks=pytest.mark.xfail(reason="a repeated constant filter freezes", strict=True),
        ),
    ],
)
def test_constants_of_any_width_hold_no_channel_back(network: type[nn.Module]) -> None:
    model = ready(network)
    graph = trace(model)
    assert not stuck(graph)
    assert error(model, graph, random_keep(graph), images()[0]) < 1e-9


class TokensCounted(Framed):
    """Attention whose width is read, and whose tokens are counted, which may be as many."""

    def __init__(self) -> None:
        super().__init__(12)
        self.q, self.k, self.v = nn.Linear(12, 24), nn.Linear(12, 24), nn.Linear(12, 12)

    def body(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k = self.q(tokens), self.k(tokens)
        scores = (q @ k.transpose(-1, -2)) * q.size(-1) ** -0.5
        scores = scores / scores.size(-1)
        return x + (scores @ self.v(tokens)).transpose(1, 2).reshape(x.shape)


class TilesCounted(Framed):
    """Widths that become equal, read in a loop that larger images run more often."""

    def __init__(self) -> None:
        super().__init__(8, 28)
        self.a, self.b = conv(8, 16), conv(8, 12)

    def body(self, x: Tensor) -> Tensor:
        rows = []
        for tile in x.split(8, 2):
            a, b = self.a(tile), self.b(tile)
            rows.append(torch.cat((a / a.shape[1] ** 0.5, b / b.shape[1] ** 0.5), 1))
        return torch.cat(rows, 2)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="columns are told from Python 3.11 on")
@pytest.mark.parametrize("network", [TokensCounted, TilesCounted])
def test_only_the_read_that_was_meant_is_told(network: type[Framed]) -> None:
    model = ready(network)
    graph = trace(model)
    known = {group.name: group.size for group in graph.groups}
    wanted = {"q": 16} if network is TokensCounted else {"a": 8, "b": 8}
    assert wanted.keys() <= known.keys()
    keep = {name: list(range(width)) for name, width in wanted.items()}
    for size in ((4, 4), (2, 8), (4, 5), (8, 8), (17, 8), (40, 6)):
        image = torch.rand(2, 3, *size, dtype=torch.float64)
        assert error(model, graph, keep, image) < 1e-12


class OfOneType(Framed):
    """Functions that compare the number types of images and weights."""

    def body(self, x: Tensor) -> Tensor:
        return torch.tensordot(x.to(self.tail.weight.dtype), self.tail.weight.new_ones(1), 0)[
            ..., 0
        ]


class MixedTypes(Framed):
    """A layer in half precision among others."""

    def __init__(self) -> None:
        super().__init__(8)
        self.narrow = conv(8, 8).bfloat16()

    def body(self, x: Tensor) -> Tensor:
        return self.narrow(x.bfloat16()).float()


class WithMask(Framed):
    """Truth values among the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        sr = super().forward(x)
        return sr, sr > 0  # type: ignore[return-value]

    def body(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("network", [OfOneType, MixedTypes, WithMask])
def test_number_types_freeze_nothing(network: type[Framed]) -> None:
    torch.manual_seed(0)
    graph = trace(network().eval())
    assert not stuck(graph) and graph.groups


def test_layers_that_forget_are_not_relied_on() -> None:
    """Copies of an einops layer lose what it was given: no cut may depend on that."""

    class Layered(Framed):
        def __init__(self, **lengths: int) -> None:
            super().__init__(12)
            self.tokens = Rearrange("b c h w -> b (h w) c", **lengths)
            self.mix = nn.Linear(12, 12)

        def body(self, x: Tensor) -> Tensor:
            return self.mix(self.tokens(x)).transpose(1, 2).reshape(x.shape)

    free, told = trace(Layered().eval()), trace(Layered(c=12).eval())
    assert {group.name for group in free.groups} == {"head", "mix"}
    assert {group.name for group in told.groups} == {"mix"}
    assert "copies lose their size rules" in next(f.reason for f in told.frozen if f.size == 12)

"""Merging re-parameterised convolutions: equal outputs, borders included, and fewer layers."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import drc
from drc.core.errors import ModelError
from drc.graph.surgery import cut
from drc.graph.trace import trace
from drc.merging.affine import Conv, in_sequence, side_by_side
from drc.merging.merge import merge

CHANNELS = 6


def conv(inputs: int = CHANNELS, outputs: int = CHANNELS, size=3, **options) -> nn.Conv2d:
    padding = options.pop("padding", "same" if isinstance(size, tuple) else size // 2)
    return nn.Conv2d(inputs, outputs, size, padding=padding, **options)


def lively(model: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, in eval mode."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.2)
    return model.eval()


class RepVGG(nn.Module):
    """3x3, 1x1 and identity branches, each with a batch norm; no identity where it strides."""

    def __init__(self, stride: int = 1, skip: bool = True) -> None:
        super().__init__()
        norm = nn.BatchNorm2d
        self.wide = nn.Sequential(conv(stride=stride, bias=False), norm(CHANNELS))
        self.point = nn.Sequential(conv(size=1, stride=stride, bias=False), norm(CHANNELS))
        self.skip = norm(CHANNELS) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        skipped = self.skip(x) if self.skip is not None else 0
        return F.relu(self.wide(x) + self.point(x) + skipped)


class Branches(nn.Module):
    """The sum of any branches and, perhaps, of the input."""

    def __init__(self, *branches: nn.Module, skip: bool = False) -> None:
        super().__init__()
        self.branches, self.skip = nn.ModuleList(branches), skip

    def forward(self, x: Tensor) -> Tensor:
        total = sum(branch(x) for branch in self.branches)
        return F.relu(total + x if self.skip else total)


class Expanded(nn.Module):
    """1x1 up, 3x3, 1x1 down beside a skip, scaled: as in RepSR; the first has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(CHANNELS, 12, 1, bias=False), conv(12, 12), nn.Dropout(), conv(12, CHANNELS, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.add(x, self.body(x), alpha=0.2))


class OnTheFly(nn.Module):
    """Computes its one kernel from two in every forward, as ECBSR does outside training."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(12, CHANNELS, 1, 1))
        self.second = nn.Parameter(torch.randn(CHANNELS, 12, 3, 3))
        self.scale = nn.Parameter(torch.rand(1, CHANNELS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        kernel = F.conv2d(self.second, self.first.permute(1, 0, 2, 3))
        return F.relu(self.scale * F.conv2d(x, kernel, padding=1) + x)


class Refreshed(nn.Module):
    """Writes its one kernel anew in every forward, from a factor that training alone needs."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.used = conv(bias=False), conv(bias=False)

    def forward(self, x: Tensor) -> Tensor:
        self.used.weight.data = 2 * self.source.weight.detach()
        return F.relu(self.used(x))


class Optional(nn.Module):
    """May be given what to add, and is not."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.Sequential(conv(), conv(size=1))

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        x = F.relu(self.branches(x))
        return x if more is None else x + more


class Remembering(nn.Module):
    """Keeps what it saw last, as caches of masks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.seen = nn.Sequential(conv(), conv(size=1)), {}

    def forward(self, x: Tensor) -> Tensor:
        self.seen["last"] = x.shape
        return F.relu(self.conv(x)) if x.sum() > -1e9 else x


class SR(nn.Module):
    """An SR network around one block."""

    def __init__(self, *blocks: nn.Module, scale: int = 2) -> None:
        super().__init__()
        self.head, self.blocks = conv(3), nn.Sequential(*blocks)
        self.tail = nn.Sequential(conv(CHANNELS, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.blocks(F.relu(self.head(x))))


class Shut(nn.Module):
    """A forward with control flow on the image, which no tracer follows."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x if x.shape[-1] % 2 == 0 else F.pad(x, (0, 1, 0, 0)))


def convolutions(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in model.modules())


def assert_merged(model: nn.Module, layers: int) -> nn.Module:
    """`merge` gives the same outputs on an odd-sized image, from this many convolutions."""
    lively(model)
    state = copy.deepcopy(model.state_dict())
    notes: list[str] = []
    merged = merge(model, notes=notes)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    image = torch.rand(2, 3, 9, 14)
    with torch.no_grad():
        expected, found = model(image), merged(image)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max(), notes
    assert convolutions(merged) == layers, notes
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    assert not merged.training
    return merged


@pytest.mark.parametrize(
    "block",
    [
        RepVGG(),
        RepVGG(skip=False),
        Expanded(),
        OnTheFly(),
        Refreshed(),
        Remembering(),
        Optional(),
        Shut(Optional()),
        Branches(conv(), conv(size=1), skip=True),
        Branches(conv(size=(1, 3)), conv(size=(3, 1)), conv()),
        Branches(conv(size=5), conv(), conv(size=3, padding=2, dilation=2)),
        Branches(conv(groups=2), conv(groups=6, size=1), skip=True),
        Branches(conv(padding_mode="reflect"), conv(size=1), skip=True),
        Branches(conv(groups=CHANNELS), conv(groups=CHANNELS, size=5), skip=True),
        nn.Sequential(conv(), conv(size=1), nn.Identity(), conv(size=1), nn.ReLU()),
        nn.Sequential(conv(size=1), conv(padding_mode="replicate"), nn.ReLU()),
        nn.Sequential(conv(padding="same", dilation=2), nn.BatchNorm2d(CHANNELS), nn.ReLU()),
    ],
    ids=lambda block: type(block).__name__,
)
def test_a_block_becomes_one_convolution(block: nn.Module) -> None:
    assert_merged(SR(block), 3)


def test_what_strides_is_merged_and_shrinks() -> None:
    model = SR(RepVGG(stride=2, skip=False), nn.Sequential(conv(stride=2), conv(size=1), nn.ReLU()))
    assert_merged(model, 4)
    assert_merged(SR(nn.Sequential(conv(), conv(size=1, stride=2), nn.ReLU())), 3)


def test_branches_that_would_cost_more_as_one_stay() -> None:
    assert_merged(SR(Branches(conv(groups=2), conv(groups=3, size=1))), 4)


@pytest.mark.parametrize(
    ("blocks", "layers"),
    [
        ([conv(size=1), conv()], 4),  # the border of the second would hold the bias of the first
        ([conv(size=1, bias=False), conv()], 3),
        ([conv(size=1), conv(padding=0)], 3),
        ([conv(), conv()], 4),  # two kernels of several taps
        ([conv(6, 2), conv(2, 6, 1)], 4),  # a bottleneck, cheaper as it is
        ([conv(groups=6), conv(size=1)], 4),  # depthwise separable, cheaper as it is
    ],
)
def test_sequences_are_merged_where_that_is_exact_and_cheaper(blocks, layers) -> None:
    assert_merged(SR(nn.Sequential(*blocks, nn.ReLU())), layers)


def test_parts_of_a_network_that_cannot_be_traced() -> None:
    merged = assert_merged(Shut(SR(RepVGG(), Shut(RepVGG()), Expanded())), 5)
    assert type(merged) is Shut


def test_a_pruned_network_is_merged() -> None:
    torch.manual_seed(0)
    model = lively(SR(RepVGG(), Shut(RepVGG()), Expanded()))
    graph = trace(model)
    keep = {
        group.name: [list(range(group.size // 3, group.size))] * group.blocks
        for group in graph.groups
    }
    assert keep
    small = cut(model, graph, keep)
    dense = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in small.parameters()) < dense
    assert_merged(small, 5)


def test_an_op_that_writes_in_place_between_the_branches_is_found_out() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = conv(), conv(size=1)

        def forward(self, x: Tensor) -> Tensor:
            before = self.first(x)
            x.mul_(2)
            return F.relu(before + self.second(x))

    model = SR(Late()).eval()
    notes: list[str] = []
    merged = merge(model, notes=notes)
    assert convolutions(merged) == convolutions(model)
    assert notes[0].startswith("not merged: its outputs would differ by")


def test_hooked_layers_stay() -> None:
    model = SR(nn.Sequential(conv(), conv(size=1), nn.ReLU())).eval()
    model.blocks[0][0].register_forward_hook(lambda module, args, output: output * 2)
    assert convolutions(merge(model)) == 4


def test_networks_with_nothing_to_merge_come_back_as_they_are() -> None:
    model = SR(nn.ReLU()).eval()
    notes: list[str] = []
    same = drc.merge(model, notes=notes)
    assert type(same) is SR and same is not model
    assert notes == ["nothing in it can be merged"]
    with pytest.raises(ModelError, match=r"torch\.nn\.Module"):
        drc.merge("drn_tiny")


def test_a_registered_network_keeps_its_traits() -> None:
    model = drc.create_model("drn_tiny")
    notes: list[str] = []
    merged = merge(model, notes=notes)
    image = torch.rand(1, 3, 13, 10) * 255
    with torch.no_grad():
        expected, found = model(image), merged(image)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-3
    assert copy.deepcopy(merged).drc_traits == model.drc_traits
    # The mean that is added to every image of the pyramid goes into the layer before it.
    assert notes == ["6 linear ops became 3 convolutions, 384,361 parameters became 384,349"]
    assert convolutions(model) - convolutions(merged) == 1


OPTIONS = [
    dict(zip(("size", "padding", "dilation", "stride", "groups"), values, strict=True))
    for values in itertools.product((1, 2, 3), (0, 1, 2), (1, 2), (1, 2), (1, 2, 4))
]


def _random_conv(options: dict, seed: int) -> Conv:
    generator = torch.Generator().manual_seed(seed)
    size, groups = options["size"], options["groups"]
    pair = {name: (options[name],) * 2 for name in ("padding", "dilation", "stride")}
    weight = torch.randn(4, 4 // groups, size, size, generator=generator, dtype=torch.float64)
    return Conv(
        weight, torch.randn(4, generator=generator, dtype=torch.float64), groups=groups, **pair
    )


def _apply(conv: Conv, x: Tensor) -> Tensor:
    return F.conv2d(
        x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )


def test_whatever_the_algebra_merges_is_equal() -> None:
    image = torch.randn(1, 4, 11, 8, dtype=torch.float64)
    merged = {"sum": 0, "sequence": 0}
    for number in range(3000):
        one, two = (OPTIONS[(number * step) % len(OPTIONS)] for step in (1, 37))
        first, second = _random_conv(one, number), _random_conv(two, number + 1)
        total = side_by_side(first, second)
        if total is not None:
            merged["sum"] += 1
            torch.testing.assert_close(
                _apply(total, image), _apply(first, image) + _apply(second, image)
            )
        chain = in_sequence(first, second)
        if chain is not None:
            merged["sequence"] += 1
            torch.testing.assert_close(_apply(chain, image), _apply(second, _apply(first, image)))
    assert min(merged.values()) > 50, merged

"""What drc takes for a network: any float32 module from an image to an image, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import drc
from drc.core.errors import DataError, DrcError, ModelError, UsageError
from drc.data.bundled import bundled_pairs
from drc.networks.dual import DualModel
from drc.networks.traits import get_traits, plain_network


class Net(nn.Module):
    """A small SR network; `scale` is no attribute, so it must be measured."""

    def __init__(self, scale: int = 2, channels: int = 3) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, 16, 3, padding=1)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.tail = nn.Conv2d(16, channels * scale**2, 3, padding=1)
        self.up = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.tail(self.body(self.head(x).relu()).relu()))


def _loader(scale: int = 2, channels: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(torch.rand(4, channels, 12, 12), torch.rand(4, channels, 12 * scale, 12 * scale))]


def _compress(model: nn.Module, scale: int = 2, channels: int = 3, **options):
    search = drc.SearchSettings(patches=2, dual_steps=1)
    given = {"search": search, "recovery": drc.RecoverySettings(steps=1), "test": None, **options}
    return drc.compress(model, _loader(scale, channels), **given)


def _refusal(model: nn.Module, kind: type[DrcError] = ModelError) -> str:
    with pytest.raises(kind) as error:
        _compress(model)
    assert "\n" not in str(error.value)
    return str(error.value)


# Right results --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_channels(channels: int) -> None:
    model = Net(channels=channels)
    assert get_traits(model).channels == channels
    result = _compress(model, channels=channels)
    assert result.model(torch.rand(1, channels, 8, 8)).shape == (1, channels, 16, 16)
    weights = (16 * channels + 16 * 16 + 16 * 4 * channels) * 9
    assert drc.complexity(model, (8, 8)).macs == weights * 64
    assert result.report.before.latency_ms is not None
    assert result.report.after.macs < result.report.before.macs


def test_one_channel_networks_learn_and_are_measured_on_luma() -> None:
    model = Net(channels=1)
    plan = drc.search(
        model, _loader(channels=3), settings=drc.SearchSettings(patches=2, dual_steps=1)
    )
    grey = drc.search(
        model, [tuple(_luma(x) for x in pair) for pair in _loader(channels=3)],
        settings=drc.SearchSettings(patches=2, strategy="uniform"),
    )  # fmt: skip
    assert plan.groups.keys() == grey.groups.keys()
    torch.nn.init.zeros_(model.tail.weight)
    torch.nn.init.constant_(model.tail.bias, 0.5)
    flat = drc.evaluate(model, bundled_pairs("test")[:1], device="cpu")
    hr = torch.rand(1, 32, 32)
    level = 10 * torch.log10(1 / ((hr * 255).round() / 255 - 128 / 255).pow(2).mean())
    own = drc.evaluate(model, [(torch.rand(1, 16, 16), hr)], device="cpu")
    assert 5 < flat.psnr < 30
    assert own.psnr == pytest.approx(float(level), abs=1.0)  # but for the border


def _luma(image: Tensor) -> Tensor:
    red, green, blue = (image * 255).split(1, 1)
    return (16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255) / 255


def test_four_channels_have_no_psnr() -> None:
    with pytest.raises(DataError, match=r"this network's have 4 channels; leave them out"):
        drc.evaluate(Net(channels=4), _loader(channels=4), device="cpu")


def test_images_of_other_channels_than_the_networks() -> None:
    few = drc.SearchSettings(patches=2)
    with pytest.raises(DataError, match="lr has 3 channels and this network takes images of 4"):
        drc.search(Net(channels=4), _loader(channels=3), settings=few)
    with pytest.raises(DataError, match="lr has 1 channels and this network takes RGB images"):
        drc.search(Net(), _loader(channels=1), settings=few)


@pytest.mark.parametrize("form", ["compiled", "compiled in place", "parallel"])
def test_wrappers_come_off(form: str) -> None:
    model = Net()
    wrapped: nn.Module = model
    if form == "compiled":
        wrapped = torch.compile(model)  # type: ignore[assignment]
    elif form == "parallel":
        wrapped = nn.DataParallel(model)
    else:
        model.compile()
    result = _compress(wrapped)
    assert type(result.model) is Net
    assert result.report.after.params < result.report.before.params


def test_shared_weights_are_cut_once() -> None:
    model = Net()
    model.again = model.body
    model.twin = nn.Conv2d(16, 16, 3, padding=1)
    model.twin.weight = model.body.weight
    result = _compress(model, ratio=0.4)
    small = result.model
    assert small.again is small.body and small.twin.weight is small.body.weight
    assert result.report.before.params == sum(p.numel() for p in model.parameters())
    assert result.report.after.params == sum(p.numel() for p in small.parameters())


def test_training_mode_is_given_back_and_the_result_is_the_same() -> None:
    model = Net()
    model.body = nn.Sequential(model.body, nn.BatchNorm2d(16), nn.Dropout(0.5))
    plans = []
    for mode in (True, False):
        model.train(mode)
        model.body[1].train(not mode)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        torch.manual_seed(0)  # of the loader's images
        result = _compress(model, seed=3)
        assert model.training is mode and model.body[1].training is not mode
        assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
        assert not any(module.training for module in result.model.modules())
        plans.append(result.plan)
    assert plans[0] == plans[1]


@pytest.mark.parametrize("scale", [1, 5])
def test_scales_that_no_dual_model_has(scale: int) -> None:
    with pytest.raises(UsageError, match=f"twos and threes, not {scale}; dual_weight 0 works"):
        DualModel(scale)
    with pytest.raises(UsageError, match="dual_weight 0 works without one"):
        _compress(Net(scale), scale)
    result = _compress(
        Net(scale), scale, search=drc.SearchSettings(patches=2, dual_weight=0),
        recovery=drc.RecoverySettings(steps=1, dual_weight=0),
    )  # fmt: skip
    assert result.plan.scale == scale
    assert result.report.after.params < result.report.before.params


def test_measuring_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    get_traits(Net())
    model = Net()
    torch.set_rng_state(before)
    get_traits(model)
    assert torch.equal(torch.get_rng_state(), before)


# Refusals -------------------------------------------------------------------------------------


def test_no_module() -> None:
    with pytest.raises(ModelError, match=r"must be a torch\.nn\.Module, not function"):
        plain_network(lambda x: x)
    with pytest.raises(ModelError, match="has no parameters"):
        plain_network(nn.PixelShuffle(2))


def test_a_network_that_fails_on_images() -> None:
    class Flat(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1))

    line = _refusal(Flat())
    assert "does not run on a 1x3x48x48 image (RuntimeError: " in line


def test_a_network_that_needs_more_than_the_image() -> None:
    class Blind(Net):
        def forward(self, x: Tensor, kernel: Tensor, *, noise: float, steps: int = 1) -> Tensor:
            return super().forward(x) * noise

    assert "the forward of Blind needs kernel, noise besides the image" in _refusal(Blind())


def test_lazy_and_meta_parameters() -> None:
    lazy = Net()
    lazy.body = nn.LazyConv2d(16, 3, padding=1)
    assert "body.weight is lazy and has no shape yet; run the network once" in _refusal(lazy)
    lazy(torch.rand(1, 3, 8, 8))
    assert _compress(lazy).report.recovered
    assert "head.weight is on the meta device" in _refusal(Net().to("meta"))
    buffered = Net()
    buffered.register_buffer("table", torch.ones(2, device="meta"))
    assert "table is on the meta device" in _refusal(buffered)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_and_partly_compiled_networks() -> None:
    assert "the network is a ScriptModule" in _refusal(torch.jit.script(Net()))
    part = Net()
    part.body = torch.jit.script(part.body)
    assert "the network's part body is a ScriptModule" in _refusal(part)
    part.body = torch.compile(nn.Conv2d(16, 16, 3, padding=1))
    assert "the network's part body was compiled by itself" in _refusal(part)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_types(kind: torch.dtype) -> None:
    line = _refusal(Net().to(kind))
    assert f"head.weight is {kind}" in line and "model.float()" in line


@pytest.mark.parametrize(
    ("wrap", "parts"),
    [
        (lambda sr: {"sr": sr, "loss": 0}, ["a dict of 'sr', 'loss'", "wrap the network"]),
        (lambda sr: (sr, sr.mean(1)), ["a tuple of a tensor of shape 1x3x96x96 and a tensor of"]),
        (lambda sr: (sr.repeat(1, 4, 1, 1), sr), ["1x12x96x96", "drc takes every entry"]),
        (lambda sr: (sr, None), ["drc needs an SR image, or a list"]),
        (lambda sr: sr[:, :1], ["1x1x96x96 for images of 3 channels"]),
        (lambda sr: sr[..., :-1], ["a 48x48 input gave a 96x95 output"]),
        (lambda sr: [], ["a list"]),
    ],
)
def test_outputs_that_are_no_images(wrap, parts) -> None:
    class Odd(Net):
        def forward(self, x: Tensor) -> Tensor:
            return wrap(super().forward(x))

    line = _refusal(Odd())
    assert all(part in line for part in parts), line
    declared = Odd()
    declared.scale = 2  # then nothing is measured, and the loss finds out
    assert _refusal(declared)


def test_a_network_that_writes_into_its_image() -> None:
    class Careless(Net):
        def forward(self, x: Tensor) -> Tensor:
            x *= 255
            return super().forward(x)

    assert "writes into the image it is given" in _refusal(Careless())
    declared = Careless()
    declared.scale = 2
    assert "writes into the image it is given" in _refusal(declared)

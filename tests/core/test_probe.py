"""What images a network takes is found by trying, and a refusal is told from a lack of memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from drc.core.errors import ModelError
from drc.core.probe import (
    NothingTakenError,
    first_taken,
    noise,
    scale_between,
    smallest_multiple,
    smallest_side,
)
from drc.graph.inputs import example_input
from drc.networks.traits import get_traits

OUT_OF_MEMORY = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")]


def wants_sixteen(image: Tensor) -> Tensor:
    if image.shape[-1] % 16 or image.shape[-2] % 16 or image.shape[1] != 1:
        raise RuntimeError("window")
    return image.repeat_interleave(2, -1).repeat_interleave(2, -2)


class Starving(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.conv, self.error = nn.Conv2d(3, 12, 3, padding=1), error

    def forward(self, image: Tensor) -> Tensor:
        raise self.error


def test_the_first_image_that_is_taken_is_found() -> None:
    shapes = [(3, 8, 8), (1, 8, 8), (1, 16, 16), (1, 32, 32)]
    image, output = first_taken(noise(shapes), wants_sixteen)
    assert image.shape == (1, 1, 16, 16)
    assert scale_between(image, output) == 2
    with pytest.raises(NothingTakenError) as caught:
        first_taken(noise(shapes[:2]), wants_sixteen)
    assert [tuple(image.shape[1:]) for image, _ in caught.value.failures] == shapes[:2]


def test_noise_is_always_the_same_and_leaves_the_callers_numbers() -> None:
    before = torch.get_rng_state()
    first, second = (list(noise([(3, 4, 5)] * 2, white=255.0)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    assert 1 < first[0].max() <= 255
    assert torch.equal(before, torch.get_rng_state())


def test_a_scale_is_whole_and_the_same_both_ways() -> None:
    lr = torch.zeros(1, 3, 6, 9)
    assert scale_between(lr, torch.zeros(1, 3, 18, 27)) == 3
    for size in ((18, 18), (9, 13), (3, 4), (12, 27)):
        assert scale_between(lr, torch.zeros(1, 3, *size)) is None


def test_multiples_and_least_sides() -> None:
    sizes, multiple = smallest_multiple(lambda sizes: [wants_or_raises(size) for size in sizes])
    assert multiple == 16 and sizes[0] == (32, 48)
    photo = torch.zeros(1, 1, 48, 64)
    assert smallest_side(lambda lr: min(lr.shape[2:]) >= 7, photo, 1) == 7
    assert smallest_side(lambda lr: min(lr.shape[2:]) >= 7, photo, 4) == 8
    assert smallest_side(lambda lr: wants_sixteen(lr).numel() > 0, photo, 16, least=2) == 16


def wants_or_raises(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] % 16 or size[1] % 16:
        raise ModelError("window")
    return size


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_is_no_refusal(error: Exception) -> None:
    for look in (example_input, get_traits):
        with pytest.raises(type(error)):
            look(Starving(error))
    photo = torch.zeros(1, 3, 40, 64)
    with pytest.raises(type(error)):
        smallest_side(lambda lr: Starving(error)(lr) is None, photo, 1)

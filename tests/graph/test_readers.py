"""Convolutions and linear layers as linear maps at single positions of their output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from drc.graph.readers import columns_at, linear_maps, matrix_of, positions, rows_at

LAYERS = [
    nn.Conv2d(3, 5, 3, padding=1),
    nn.Conv2d(3, 5, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(2, 1)),
    nn.Conv2d(3, 5, 4, stride=3, bias=False),
    nn.Conv2d(3, 5, 1),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_convolution_is_its_matrix_times_the_columns(layer: nn.Conv2d) -> None:
    image = torch.randn(2, 3, 11, 9)
    output = layer(image)
    where = positions(output, layer, 30, torch.Generator().manual_seed(0))
    product = columns_at(layer, image, where).flatten(1) @ matrix_of(layer).flatten(1).T
    bias = 0 if layer.bias is None else layer.bias
    assert len(where) == min(30, output.numel() // 5)
    assert torch.allclose(product + bias, rows_at(output, layer, where), atol=1e-5)


def test_a_linear_layer_is_its_matrix_times_the_tokens() -> None:
    layer, tokens = nn.Linear(4, 6), torch.randn(2, 3, 7, 4)
    output = layer(tokens)
    where = positions(output, layer, 10, torch.Generator().manual_seed(0))
    product = columns_at(layer, tokens, where).flatten(1) @ layer.weight.T + layer.bias
    assert torch.allclose(product, rows_at(output, layer, where), atol=1e-6)


def test_places_are_all_of_few_and_some_of_many() -> None:
    layer, generator = nn.Conv2d(3, 5, 1), torch.Generator().manual_seed(0)
    assert positions(torch.zeros(2, 5, 3, 3), layer, 18, generator).tolist() == list(range(18))
    some = positions(torch.zeros(2, 5, 30, 30), layer, 18, generator)
    assert len(set(some.tolist())) == 18 and int(some.max()) < 1800


def test_layers_that_are_no_plain_linear_maps_are_left_out() -> None:
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict(
        {
            "plain": nn.Conv2d(4, 4, 3),
            "grouped": nn.Conv2d(4, 4, 3, groups=2),
            "reflected": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            "transposed": nn.ConvTranspose2d(4, 4, 3),
            "first": nn.Sequential(shared),
            "second": nn.Linear(4, 4),
        }
    )
    model["second"].weight = shared.weight
    assert list(linear_maps(model)) == ["plain"]

"""What one pass over the calibration data tells of every layer: second moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drc.core.distributed import add_up
from drc.core.errors import TrainingError
from drc.core.runtime import forward_hooks
from drc.graph.groups import Slice
from drc.graph.readers import LinearMap, called_once, columns_at, positions, rows_at
from drc.networks.traits import sr_images
from drc.selection.calibration import Calibration
from drc.selection.gates import gate_gradients, gate_slices
from drc.training.losses import Outputs

PLACES = 128
"""Places of a layer's output that are looked at in every crop."""


@dataclass
class LayerMoments:
    """Second moments of one layer, over crops and places.

    Attributes:
        columns: of what it reads, `(n + 1, n + 1)` float64; the last column is the constant 1.
        gradients: of the gradient of a `_Probe` at its output, `(outputs, outputs)` float64, summed
            over the places of a crop.
    """

    columns: Tensor
    gradients: Tensor


@dataclass
class Moments:
    """Of all layers that read channels, and of the gates of channels read otherwise.

    Attributes:
        layers: by name of the layer; those that the forward calls exactly once.
        gates: per group, in graph order, the second moments of gate gradients over crops,
            `(blocks, atoms, atoms)`.
    """

    layers: dict[str, LayerMoments]
    gates: list[np.ndarray]


def collect(calibration: Calibration) -> Moments:
    """Second moments, from one pass over the crops; each of several processes takes its shard.

    Raises:
        TrainingError: the network's images are not finite.
        DataError: there are no crops.
    """
    groups = calibration.graph.groups
    image, _ = next(calibration.crops())
    # A layer that the forward calls otherwise, or often, is not refitted, and nothing sees it.
    layers = called_once(calibration.model, image)
    read = {reader_of(part, layers) for group in groups for part in group.slices} - {None}
    chosen = {name: layers[name] for name in sorted(n for n in read if n)}
    others = [[p for p in gate_slices(g) if reader_of(p, layers) is None] for g in groups]
    draws = _Draws(calibration.seed)
    looks = {name: _Look(layer, draws) for name, layer in chosen.items()}
    gates = [np.zeros((g.blocks, g.size, g.size)) for g in groups]
    with forward_hooks(chosen, lambda name, inputs, output: looks[name](inputs[0], output)):
        for gradients in gate_gradients(calibration, others, _Probe(draws), draws.start):
            for total, gradient in zip(gates, gradients, strict=True):
                total += gradient[:, :, None] * gradient[:, None, :]
    crops = max(1, calibration.patches)
    return Moments(
        {name: look.moments(crops) for name, look in looks.items()},
        [add_up(torch.from_numpy(total)).numpy() / crops for total in gates],
    )


def reader_of(part: Slice, layers: dict[str, LinearMap]) -> str | None:
    """The layer whose weight reads channels here, if it is one of `layers`."""
    name, _, leaf = part.tensor.rpartition(".")
    return name if part.read and part.dim == 1 and leaf == "weight" and name in layers else None


class _Draws:
    """Random numbers that depend on a seed and the number of the crop, not on earlier crops."""

    def __init__(self, seed: int) -> None:
        self.seed, self.generator = seed, torch.Generator()

    def start(self, crop: int) -> None:
        mixed = np.random.SeedSequence((self.seed % 2**64, crop)).generate_state(1, np.uint64)
        self.generator.manual_seed(int(mixed[0]) >> 1)


class _Look:
    """Adds what it sees of one layer, call by call, to its moments."""

    def __init__(self, layer: LinearMap, draws: _Draws) -> None:
        self.layer, self.draws = layer, draws
        self.outputs, width = layer.weight.shape[0], layer.weight[0].numel() + 1
        # On the CPU: of a large network they take gigabytes.
        self.columns = torch.zeros(width, width, dtype=torch.float64)
        self.gradients = torch.zeros(self.outputs, self.outputs, dtype=torch.float64)
        self.places = torch.zeros(1, dtype=torch.float64)

    def moments(self, crops: int) -> LayerMoments:
        """The means over all processes, which all have to ask."""
        places = add_up(self.places).clamp_min(1)
        return LayerMoments(add_up(self.columns) / places, add_up(self.gradients) / crops)

    def __call__(self, value: Tensor, output: Tensor) -> None:
        if not output.requires_grad:
            return
        where = positions(output, self.layer, PLACES, self.draws.generator)
        columns = columns_at(self.layer, value.detach(), where).flatten(1)
        columns = torch.cat((columns, columns.new_ones(len(columns), 1)), 1)
        columns = columns.to(torch.promote_types(columns.dtype, torch.float32))
        self.columns += (columns.T @ columns).cpu()
        self.places += len(columns)
        share = output.numel() // self.outputs / len(where)

        def backward(gradient: Tensor) -> None:
            rows = rows_at(gradient, self.layer, where)
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
            self.gradients += (rows.T @ rows).cpu().double() * share

        output.register_hook(backward)


class _Probe:
    """A random direction in which to look at the SR image and at its way back down.

    The mean square of the gradient of this sum of randomly signed pixels is, on average over the
    signs, the curvature (Gauss-Newton) of `mse(P(x), .) + lambda * mse(D(P(x)), .)`. Unlike that
    of the loss itself it does not depend on how wrong the network is, nor on the images that
    only training asks of a pyramid.
    """

    def __init__(self, draws: _Draws) -> None:
        self.draws = draws

    def __call__(
        self, calibration: Calibration, outputs: Outputs, lr: Tensor, hr: Tensor
    ) -> Tensor:
        total = self._signed(sr_images(outputs, hr.shape[1])[-1])
        if calibration.dual is not None and calibration.dual_weight:
            down = calibration.dual(outputs)[-1]
            total = total + calibration.dual_weight**0.5 * self._signed(down)
        if not torch.isfinite(total):
            raise TrainingError("the network's images are not finite on the calibration data")
        return total

    def _signed(self, image: Tensor) -> Tensor:
        signs = torch.randint(0, 2, image.shape, generator=self.draws.generator).to(image) * 2 - 1
        return (image * signs).sum() / image.numel() ** 0.5

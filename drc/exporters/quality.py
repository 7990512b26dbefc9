"""What a lower precision costs in PSNR, on photos with ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from drc.core.runtime import Progress
from drc.evaluation.benchmark import BUNDLED, evaluate
from drc.exporters.base import Runtime
from drc.exporters.wrapper import UnitNetwork
from drc.networks.traits import Traits, set_traits


@dataclass(frozen=True)
class Quality:
    """PSNR on the luma, in dB, of the network and of the file.

    Attributes:
        data: what was measured on, in words.
        network: PSNR of the float32 network.
        file: PSNR of the file in its runtime.
        cost: the difference.
    """

    data: str
    network: float
    file: float
    cost: float


class RuntimeNetwork(nn.Module):
    """An opened file as a network in 0..1, for everything that measures networks."""

    def __init__(self, runtime: Runtime, traits: Traits) -> None:
        super().__init__()
        self._runtime = runtime
        set_traits(self, Traits(traits.scale, channels=traits.channels))

    def forward(self, lr: Tensor) -> Tensor:
        return torch.from_numpy(self._runtime(lr.contiguous().numpy()))


def measure(
    network: UnitNetwork,
    runtime: Runtime,
    data: str | Path = BUNDLED,
    progress: Progress | None = None,
) -> Quality:
    """Compare file and network on whole images; see `drc.evaluate` for data and errors."""
    plain = evaluate(network.network, data, device="cpu", progress=progress)
    other = evaluate(RuntimeNetwork(runtime, network.traits), data, device="cpu", progress=progress)
    first, second = round(plain.psnr, 4), round(other.psnr, 4)
    return Quality(plain.data, first, second, round(first - second, 4))


__all__ = ["Quality", "RuntimeNetwork", "measure"]

"""From widths to a smaller network: rank the channels, cut, and refit what read them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drc.core.distributed import on_first
from drc.graph.inputs import example_input
from drc.graph.surgery import KeepSets, cut, kept_indices, removed
from drc.graph.verify import check
from drc.networks.traits import get_traits
from drc.selection.calibration import Calibration
from drc.selection.criteria.base import Ranking, keep_best, score
from drc.selection.refit import refit
from drc.settings import PruneSettings

_REFIT_PIXELS = 64 * 64**2  # of LR images, which go through the network all at once


def rank(calibration: Calibration, widths: dict[str, int], settings: PruneSettings) -> KeepSets:
    """Which channels stay, by the criterion of the settings; the same in all processes.

    Args:
        calibration: the dense network, its groups and the crops.
        widths: how many atoms of every group stay.
        settings: of the ranking.

    Raises:
        UsageError: no such criterion.
        TrainingError, DataError: as the criterion raises them.
    """
    return keep_best(score(settings.importance, calibration, Ranking(widths, settings)), widths)


def cut_and_refit(calibration: Calibration, keep: KeepSets, reconstruct: bool = True) -> nn.Module:
    """The network that the keep sets leave, refitted, in eval mode; the same in all processes.

    Args:
        calibration: the dense network, its groups and the crops.
        keep: what stays of every group.
        reconstruct: refit the layers that read removed channels.

    Raises:
        ModelError: the network does not run with these channels removed.
        DataError: there are no crops to refit to.
    """
    model, graph = calibration.model, calibration.graph
    image = example_input(model, get_traits(model).channels)
    on_first(lambda: check(model, graph, keep, image))
    small = cut(model, graph, keep).eval()
    if reconstruct:
        small.load_state_dict(on_first(lambda: _refitted(calibration, small, keep)))
    return small


def _refitted(calibration: Calibration, small: nn.Module, keep: KeepSets) -> dict[str, Tensor]:
    """Refit the cut network on the first crops of one size; its weights on the CPU."""
    crops: list[Tensor] = []
    for lr, _ in calibration.crops():
        if crops and (len(crops) + 1) * lr[0, 0].numel() > _REFIT_PIXELS:
            break
        if not crops or lr.shape == crops[0].shape:
            crops.append(lr)
    images = torch.cat(crops)
    kept = kept_indices(calibration.graph, removed(calibration.graph, keep))
    seed, progress = calibration.seed, calibration.progress
    refit(calibration.model, small, images, kept, seed=seed, progress=progress)
    calibration.passes.add(2 * len(images))
    return {name: tensor.cpu() for name, tensor in small.state_dict().items()}

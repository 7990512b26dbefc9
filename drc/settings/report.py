"""How the networks are measured."""

from __future__ import annotations

from drc.settings.base import Positive, Settings, Whole, setting

TILE_OVERLAP = 16
"""LR pixels that are dropped at the cut edges of tiles, where nothing else is said."""

_HERE = ("compress", "report")


class ReportSettings(Settings):
    """How the networks are measured."""

    lr_size: tuple[Positive, Positive] = setting(
        (96, 96), "height and width of the LR image for MACs and latency"
    )
    runs: Whole = setting(5, "timed passes per network; 0 leaves latency out")
    self_ensemble: bool = setting(
        False, "measure with the mean over the eight flips and turns of every test image", on=_HERE
    )
    tile: Whole = setting(
        0, "largest LR side of a test image that goes through at once, 0 for whole images", on=_HERE
    )
    overlap: Whole = setting(TILE_OVERLAP, "LR pixels of a tile that are dropped at every cut edge")

"""How channels are ranked and removed."""

from __future__ import annotations

from drc.settings.base import Positive, Rate, Settings, Whole, setting

_HERE = ("compress", "prune")


class PruneSettings(Settings):
    """How channels are ranked and removed."""

    importance: str = setting(
        "dual_obs",
        "how channels are ranked: dual_greedy, dual_obs, dual_taylor, fisher, fpgm, group_norm, "
        "l1, l2, random or taylor",
        on=_HERE,
    )
    reconstruct: bool = setting(
        True, "refit the layers that read removed channels, in closed form", on=_HERE
    )
    greedy_steps: Whole = setting(2, "of `dual_greedy`, SGD steps on the layer after each channel")
    greedy_lr: Rate = setting(1e-2, "the fraction of its norm that such a step moves a weight by")
    greedy_batch: Positive = setting(16, "crops per pass of `dual_greedy`")

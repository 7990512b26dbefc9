"""How widths are found."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pydantic import field_validator, model_validator

from drc.settings.base import FIXED, Patch, Positive, Rate, Ratio, Settings, Weight, Whole, setting

_HERE = ("compress", "search")
_fixed = partial(setting, change=FIXED)


class SearchSettings(Settings):
    """How widths are found."""

    strategy: str = _fixed(
        "allocate",
        "how widths are searched: allocate, dual_darts, plain, uniform or uniform_inner",
        on=_HERE,
    )
    sensitivity: str = setting(
        "dual_obs", "of `allocate`, the criterion whose scores say what a width loses"
    )
    budget: Literal["params", "macs", "latency"] = _fixed(
        "params",
        "what the ratio counts (latency is measured, on the device of the search)",
        on=_HERE,
    )
    ratio: Ratio = _fixed(
        0.3,
        "fraction to remove, between 0 and 1; `drc search` takes several, for a plan each",
        on=_HERE,
        several=True,
    )
    front: tuple[Ratio, ...] = _fixed(
        (), "the ratios that one search solves, which a list as `ratio` fills"
    )
    round_to: Positive | Literal["auto"] = _fixed(
        8, "widths are multiples of this; `auto` asks the device which ones it likes", on=_HERE
    )
    min_width: Positive = _fixed(4, "no group gets narrower than this", on=_HERE)
    lr_size: tuple[Positive, Positive] = _fixed(
        (96, 96), "height and width of the LR image for the budgets `macs` and `latency`"
    )
    patches: Positive = setting(64, "calibration crops", on=("compress", "search", "prune"))
    patch: Patch = setting(32, "LR side of a crop, in pixels", on=_HERE)
    dual_weight: Weight = setting(0.1, "lambda of the dual regression loss, in search and ranking")
    dual_steps: Whole = setting(
        50, "steps to refine the dual model that is fitted when none is given"
    )
    darts_steps: Positive = setting(2500, "of `dual_darts`, pairs of updates of widths and weights")
    darts_order: Literal[1, 2] = setting(
        2, "of its gradient: 2 looks ahead over one update of the weights, 1 does not"
    )
    darts_lr: Rate = setting(1e-4, "learning rate of its weights (SGD)")
    darts_arch_lr: Rate = setting(3e-4, "learning rate of its width logits (Adam)")
    darts_batch: Positive = setting(
        16, "its crops per step, from each half of the calibration data"
    )

    @model_validator(mode="before")
    @classmethod
    def _split_ratios(cls, values: Any) -> Any:
        ratios = values.get("ratio") if isinstance(values, dict) else None
        if not isinstance(ratios, (list, tuple)) or not ratios:
            return values
        once = tuple(r for place, r in enumerate(ratios) if r not in ratios[:place])
        return {**values, "ratio": once[0], "front": once if len(once) > 1 else ()}

    @field_validator("round_to", mode="before")
    @classmethod
    def _whole_or_auto(cls, value: Any) -> Any:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError("should be a whole number of at least 1, or auto")
        return value

    @property
    def ratios(self) -> tuple[float, ...]:
        """All that one search solves."""
        return self.front or (self.ratio,)

"""How LR images were made is told by their spectrum, on photos that HR crops never show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from drc.core.errors import DataError
from drc.data.crops import crop_loader
from drc.data.degrade import Degradation
from drc.data.estimate import estimate_degradation
from drc.data.folders import find_pairs

SCALE = 4


def crops(folder: Path, start: int, stop: int, key: str, made: Degradation | None) -> list[Tensor]:
    pairs = find_pairs(folder, SCALE)[start:stop]
    size = {"patch": 48, "batch": 64, "steps": 1, "seed": start}
    (batch,) = crop_loader(pairs, SCALE, degradation=made, **size)
    return list(batch[key] * 255)


@pytest.fixture(scope="module")
def sharp(shared: Path) -> list[Tensor]:
    return crops(shared / "data" / "BSDS400", 0, 200, "hr", None)


@pytest.mark.parametrize(
    ("made", "low", "high"),
    [
        (None, 1.3, 1.9),  # the bicubic filter blurs like a Gaussian of 1.6 at x4
        (Degradation("nearest", SCALE), 0, 0.7),
        (Degradation("blur", SCALE, sigma=1.0), 0.7, 1.3),
        (Degradation("blur", SCALE), 1.3, 1.9),
        (Degradation("blur", SCALE, sigma=2.5), 2.2, 2.8),
    ],
)
def test_the_blur_of_other_photos_is_found(
    shared: Path, sharp: list[Tensor], made: Degradation | None, low: float, high: float
) -> None:
    seen = crops(shared / "data" / "BSDS400", 200, 300, "lr", made)
    found = estimate_degradation(seen, sharp, SCALE)
    sigma = 1.6 if found is None else 0.0 if found.kind == "nearest" else found.sigma
    assert low <= sigma <= high


def test_contrast_and_brightness_do_not_matter(shared: Path, sharp: list[Tensor]) -> None:
    made = Degradation("blur", SCALE, sigma=1.5)
    seen = crops(shared / "data" / "BSDS400", 200, 300, "lr", made)
    dull = [40 + image * 0.5 for image in seen]
    assert estimate_degradation(dull, sharp, SCALE) == estimate_degradation(seen, sharp, SCALE)


def test_small_crops_tell_too_little() -> None:
    with pytest.raises(DataError, match="at least 16x16"):
        estimate_degradation([torch.zeros(3, 8, 8)], [torch.zeros(3, 32, 32)], SCALE)

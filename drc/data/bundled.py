"""Real photos that are installed already: the colour images in scikit-image's package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from drc.core.errors import DataError
from drc.data.folders import ImagePair, Split

# No scene is in both splits: the two motorcycle photos are one stereo view.
_PHOTOS: dict[str, tuple[str, ...]] = {
    "train": (
        "astronaut.png",
        "ihc.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "rocket.jpg",
    ),
    "test": ("chelsea.png", "coffee.png"),
}


def bundled_pairs(split: Split = "train") -> list[ImagePair]:
    """The bundled photos for calibration and recovery (`train`), or for measuring (`test`).

    They have no LR files; `load_pair` makes the LR images.

    Raises:
        DataError: this installation of scikit-image lacks them.
    """
    folder = _photo_folder()
    pairs = [ImagePair(Path(name).stem, folder / name) for name in _PHOTOS[split]]
    for pair in pairs:
        if not pair.hr.is_file():
            raise DataError(
                f"{pair.hr}: scikit-image came without this photo; reinstall scikit-image>=0.22, "
                "or pass a folder of images"
            )
    return pairs


def _photo_folder() -> Path:
    """The package's data folder; finding a package does not import it, which is slow."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("scikit-image is not installed; install it, or pass a folder of images")
    return Path(spec.submodule_search_locations[0]) / "data"

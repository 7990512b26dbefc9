"""Find the HR images of a folder, and their LR images, in any of the usual layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from drc.core.errors import DataError
from drc.data.images import SUFFIXES, read_image
from drc.data.matlab import downscale

Split = Literal["train", "test"]

_LAYOUTS = (
    "expected HR images, a DIV2K tree (DIV2K_train_HR/), a benchmark set (HR/), "
    "a folder of such sets, or DIV2KRK (gt/)"
)
_DIV2K_TRAIN_COUNT = 800  # images 0801 to 0900 are DIV2K's validation set


@dataclass(frozen=True)
class ImagePair:
    """One HR image file and its LR image file; without the latter, LR is made from HR."""

    name: str
    hr: Path
    lr: Path | None = None


def find_pairs(folder: Path | str, scale: int, split: Split = "train") -> list[ImagePair]:
    """List the image pairs of a folder, sorted by name, without opening any image.

    The layouts, with X4 and x4 standing for the scale:

    - a plain folder of HR images: LR is made on the fly, as MATLAB would, for both splits;
    - `DIV2K/DIV2K_train_HR/0001.png` with `DIV2K_train_LR_bicubic/X4/0001x4.png`, and the same
      with `valid` for the test split (without that folder: images 0801 to 0900 of `train`, and
      without those every image); `folder` is `DIV2K` or what holds it;
    - a benchmark set, `HR/` with `LR_bicubic/X4/`, or a folder of sets, or what holds such a
      folder called `benchmark`: names become `Set5/img_001`, the same for both splits. Where
      `DIV2K` lies beside `benchmark`, the first is the train split and the second the test split;
    - DIV2KRK, `gt/img_1_gt.png` with `lr_x4/im_1.png`, or what holds it.

    Bicubic LR folders may be absent: then LR is made on the fly too.

    Raises:
        DataError: the folder is missing, holds none of these, or an HR image lacks its LR image.
    """
    root = Path(folder)
    with listed(root):
        pairs = _scan(root, scale, split)
    if not pairs:
        raise DataError(f"{root}: no images found; {_LAYOUTS}")
    return pairs


@contextmanager
def listed(root: Path) -> Iterator[None]:
    """For a block that lists a folder. Raises DataError where that is none, or cannot be listed."""
    if not root.exists():
        raise DataError(f"{root}: no such folder")
    if not root.is_dir():
        raise DataError(f"{root} is a file; pass the folder that holds the images")
    try:
        yield
    except OSError as error:
        raise DataError(f"{root}: cannot list the folder ({error.strerror})") from error


def images_in(folder: Path) -> list[Path]:
    """Image files of one folder by name; hidden ones are leftovers of other programs."""
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


def load_pair(pair: ImagePair, scale: int) -> tuple[Tensor, Tensor]:
    """Read one pair.

    HR is cropped at the bottom and right to `scale` times the LR image, which costs less than
    `scale` pixels.

    Returns:
        `(lr, hr)`, uint8, `(3, h, w)` and `(3, h * scale, w * scale)`.

    Raises:
        DataError: an image is unreadable, smaller than `scale`, or the two sizes do not match.
    """
    if pair.lr is None:
        hr = load_hr(pair, scale)
        return downscale(hr[None].float(), scale)[0].to(hr.dtype), hr
    hr, lr = read_image(pair.hr), read_image(pair.lr)
    check_match(pair, scale, lr, hr)
    return lr, cropped(hr, scale)


def check_match(pair: ImagePair, scale: int, lr: Tensor, hr: Tensor) -> None:
    """Compare the heights and widths of the images of a pair.

    Raises:
        DataError: HR is smaller than `scale` times LR, or larger by `scale` pixels or more.
    """
    if any(high // scale != low for low, high in zip(lr.shape[1:], hr.shape[1:], strict=True)):
        low, high = ("x".join(map(str, image.shape[1:])) for image in (lr, hr))
        raise DataError(f"{pair.lr} is {low} but {pair.hr} is {high}: not a x{scale} pair")


def cropped(hr: Tensor, scale: int) -> Tensor:
    """`(..., H, W)` without the last rows and columns that are no multiple of `scale`: a view."""
    height, width = (side // scale * scale for side in hr.shape[-2:])
    return hr[..., :height, :width]


def load_hr(pair: ImagePair, scale: int) -> Tensor:
    """Read the HR image of a pair, cropped at the bottom and right to a multiple of `scale`.

    Returns:
        `(3, H, W)`, uint8.

    Raises:
        DataError: the image is unreadable or smaller than `scale`.
    """
    hr = read_image(pair.hr)
    height, width = hr.shape[-2:]
    if min(height, width) < scale:
        raise DataError(f"{pair.hr}: a {height}x{width} image is too small for x{scale}")
    return cropped(hr, scale)


def _scan(root: Path, scale: int, split: Split) -> list[ImagePair]:
    div2k = _first_with(root, "DIV2K", "DIV2K_train_HR", "DIV2K_valid_HR")
    sets = root / "benchmark" if (root / "benchmark").is_dir() else None
    if sets is not None and (split == "test" or div2k is None):
        return _benchmark_sets(sets, scale)
    if div2k is not None:
        return _div2k(div2k, scale, split)
    blind = _first_with(root, "DIV2KRK", "gt")
    if blind is not None:
        return _div2krk(blind, scale)
    if (root / "HR").is_dir():
        return _benchmark_set(root, scale)
    images = images_in(root)
    if images:
        return [ImagePair(path.stem, path) for path in images]
    return _benchmark_sets(root, scale)


def _first_with(root: Path, name: str, *markers: str) -> Path | None:
    """`root/name` or `root`, whichever holds one of the folders `markers`."""
    folders = (root / name, root)
    return next((p for p in folders if any((p / m).is_dir() for m in markers)), None)


def _div2k(root: Path, scale: int, split: Split) -> list[ImagePair]:
    part = "valid" if split == "test" and (root / "DIV2K_valid_HR").is_dir() else "train"
    hr_folder = root / f"DIV2K_{part}_HR"
    if not hr_folder.is_dir():
        raise DataError(f"{root}: the {split} split needs the folder {hr_folder.name}")
    images = images_in(hr_folder)
    if part == "train":
        images = _div2k_split(images, split)
    lr_folder = root / f"DIV2K_{part}_LR_bicubic" / f"X{scale}"
    return _match(images, lr_folder, _scaled(scale))


def _div2k_split(images: list[Path], split: Split) -> list[Path]:
    """Keep validation images that were stored among the training images out of training."""
    numbered = [p for p in images if p.stem.isdigit() and int(p.stem) > _DIV2K_TRAIN_COUNT]
    if not numbered or len(numbered) == len(images):
        return images
    return numbered if split == "test" else [p for p in images if p not in set(numbered)]


def _benchmark_set(root: Path, scale: int, prefix: str = "") -> list[ImagePair]:
    lr_folder = root / "LR_bicubic" / f"X{scale}"
    return _match(images_in(root / "HR"), lr_folder, _scaled(scale), prefix=prefix)


def _benchmark_sets(root: Path, scale: int) -> list[ImagePair]:
    sets = sorted(p for p in root.iterdir() if (p / "HR").is_dir())
    return [pair for p in sets for pair in _benchmark_set(p, scale, prefix=f"{p.name}/")]


def _div2krk(root: Path, scale: int) -> list[ImagePair]:
    lr_folder = root / f"lr_x{scale}"
    if not lr_folder.is_dir():  # unknown blur kernels: no LR can be made from HR
        raise DataError(f"{root}: there is no folder lr_x{scale} beside gt")
    return _match(images_in(root / "gt"), lr_folder, _div2krk_stems)


def _div2krk_stems(stem: str) -> list[str]:
    """The stems an LR image may have beside `img_1_gt`: `im_1` as published, or `img_1`."""
    name = stem.removesuffix("_gt")
    return [name.replace("img_", "im_", 1), name]


def _scaled(scale: int) -> Callable[[str], list[str]]:
    """The stems an LR image may have: `0001x4` as published, or that of its HR image."""
    return lambda stem: [f"{stem}x{scale}", stem]


def _match(
    images: list[Path], lr_folder: Path, stems: Callable[[str], Iterable[str]], prefix: str = ""
) -> list[ImagePair]:
    if not lr_folder.is_dir():
        return [ImagePair(prefix + path.stem, path) for path in images]
    available = {path.stem: path for path in images_in(lr_folder)}
    pairs, missing = [], []
    for path in images:
        lr = next((available[stem] for stem in stems(path.stem) if stem in available), None)
        if lr is None:
            missing.append(path.name)
        pairs.append(ImagePair(prefix + path.stem, path, lr))
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(
            f"{lr_folder}: no LR image for {len(missing)} of {len(images)} HR images ({names}); "
            "complete the folder, or remove it to have the LR images made"
        )
    return pairs

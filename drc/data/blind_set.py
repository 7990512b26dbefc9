"""Make a test set for blind SR from HR images, in the layout of DIV2KRK."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from drc.core.errors import DataError
from drc.core.files import write_errors
from drc.core.runtime import Progress
from drc.data.degrade import Degradation
from drc.data.folders import ImagePair, find_pairs, load_hr
from drc.data.images import write_image


def build_blind_set(
    hr_folder: Path | str,
    out_folder: Path | str,
    degradation: Degradation,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[ImagePair]:
    """Degrade every image of a folder by a kernel of its own, and store kernels and images.

    `out_folder` gets, for image N in the order of `find_pairs` and a scale of 4:
    `gt/img_N_gt.png`, HR cropped to a multiple of the scale; `lr_x4/im_N.png`, the LR image,
    8 bits; and, where the degradation blurs, `gt_k_x4/kernel_N.npz` with `kernel`, `(k, k)`
    float64, sum 1, to be convolved with HR, and `source`, the name of the file that HR came from.
    (DIV2KRK holds its kernels as .mat.)

    The kernel and the noise of image N depend on `(seed, N)` alone.

    Args:
        hr_folder: HR images in any layout of `find_pairs` (its test split); LR files are not read.
        out_folder: a new folder, which appears once it is complete.
        degradation: how kernels are drawn; its scale is that of the set.
        seed: any integer.
        progress: called after every image.

    Returns:
        The pairs of the new set, as `find_pairs` lists them.

    Raises:
        DataError: `out_folder` exists, there are no images, or one is unreadable or too small.
        RunError: the folder cannot be written.
    """
    out_folder = Path(out_folder)
    if out_folder.exists():
        raise DataError(f"{out_folder} exists already; choose a new folder, or remove that one")
    scale = degradation.scale
    pairs = find_pairs(hr_folder, scale, "test")
    with _new_folder(out_folder) as folder:
        for number, pair in enumerate(pairs, 1):
            hr = load_hr(pair, scale)
            drawn = int(np.random.default_rng([seed % 2**64, number]).integers(2**63))
            try:
                kernel, lr = degradation.degrade(hr, drawn)
            except DataError as error:
                raise DataError(f"{pair.hr}: {error}") from None
            write_image(folder / "gt" / f"img_{number}_gt.png", hr)
            write_image(folder / f"lr_x{scale}" / f"im_{number}.png", lr)
            if degradation.kernel_size > 1:
                kernels = folder / f"gt_k_x{scale}"
                source = np.array(pair.hr.name)
                with write_errors(kernels):
                    kernels.mkdir(exist_ok=True)
                    np.savez(kernels / f"kernel_{number}.npz", kernel=kernel.numpy(), source=source)
            if progress is not None:
                progress("images", number, len(pairs), {})
    return find_pairs(out_folder, scale, "test")


@contextmanager
def _new_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, moved to `final` if the block ends without an error, else removed."""
    temporary = final.absolute().parent / f".{final.name[:100]}.{secrets.token_hex(6)}"
    try:
        with write_errors(final):
            temporary.mkdir(parents=True)
        yield temporary
        with write_errors(final):
            temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

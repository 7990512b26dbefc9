"""The loader alone: patches per second, and memory over many thousand batches.

    python -m benchmarks.speed.loader ../shared/data/BSDS400
    python -m benchmarks.speed.loader ../shared/data/BSDS400 --seconds 5 --memory-seconds 600

Batches of 16 crops, LR patch 48 at x4. The images are those of the folder (small ones, which all
fit the cache), and 2040x1356 PNG files tiled of them in a temporary folder, as large as DIV2K's,
each measured cached and not. "cached" is the steady state: every image was read once before the
time starts. Uncached, every crop decodes its image.
"lr_files" has LR files beside HR, the others make LR: MATLAB's bicubic, or random blur.

Other work on the machine slows patches per second, but hardly the CPU time per patch.

Memory is that of this process and its workers, in pages of their own and their part of shared ones
(Linux), at twenty-one moments of the run.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import SCALE, parser, write_result
from drc.data.crops import CropDataset
from drc.data.degrade import Degradation
from drc.data.draws import CACHE_BYTES
from drc.data.folders import ImagePair, find_pairs, load_pair
from drc.data.images import write_image
from drc.data.loader import StepLoader

BATCH, PATCH = 16, 48
LARGE = (1356, 2040)
STEPS = 10**7  # more than any of the runs here takes
MODES = ("lr_files", "bicubic", "iso", "aniso")


def main() -> None:
    given = parser(__doc__, large=6, seconds=1.0, memory_seconds=60.0, workers=[0, 1, 2])
    given.add_argument("folder", type=Path, help="HR images; --large of them are tiled")
    options = given.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sets = {
            "folder": with_lr(find_pairs(options.folder, SCALE), root / "small"),
            "large": with_lr(tile(options.folder, root / "hr", options.large), root / "large"),
        }
        rows = list(speeds(sets, options.workers, options.seconds))
        memory = watch_memory(sets["folder"], max(options.workers), options.memory_seconds)
    result = {
        "batch": BATCH,
        "patch": PATCH,
        "scale": SCALE,
        "images": {name: len(pairs) for name, pairs in sets.items()},
        "patches_per_second": rows,
        "memory": memory,
        "load_average": round(os.getloadavg()[1], 1),
    }
    write_result("loader_speed", result)


def speeds(
    sets: dict[str, list[ImagePair]], workers: list[int], seconds: float
) -> Iterator[dict[str, object]]:
    """One row of patches per second for each set, mode, cache and number of workers."""
    for name, mode, cache in itertools.product(sets, MODES, (True, False)):
        row: dict[str, object] = {"images": name, "lr": mode, "cached": cache}
        for count in workers:
            rate, cpu = measure(dataset(sets[name], mode, cache), cache, count, seconds)
            row[f"workers_{count}"] = round(rate, 1)
            if not count:
                row["cpu_ms_per_patch"] = round(1000 * cpu, 2)
        print(row, flush=True)
        yield row


def measure(crops: CropDataset, cached: bool, workers: int, seconds: float) -> tuple[float, float]:
    """Patches per second over at least `seconds`, and seconds of this process's CPU per patch."""
    if cached:
        for number in range(len(crops.pairs)):
            crops._usable(number)
    batches = iter(loader(crops, workers))
    next(batches)
    start, busy, patches = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        patches += len(next(batches)["lr"])
    taken, busy = time.perf_counter() - start, time.process_time() - busy
    return patches / taken, busy / patches


def watch_memory(pairs: list[ImagePair], workers: int, seconds: float) -> dict[str, object]:
    """Megabytes while batches are taken for `seconds`, with workers and the cache."""
    batches = iter(loader(dataset(pairs, "bicubic", True), workers))
    start, taken, readings = time.perf_counter(), 0, []
    while not readings or time.perf_counter() - start < seconds:
        next(batches)
        taken += 1
        if time.perf_counter() - start >= len(readings) * seconds / 20:
            readings.append(round(memory_mb(), 1))
    return {"workers": workers, "batches": taken, "seconds": seconds, "mb": readings}


def loader(crops: CropDataset, workers: int) -> StepLoader:
    return StepLoader(
        crops, batch=BATCH, steps=STEPS, start=0, workers=workers, share=(0, 1), on_skip=None
    )


def dataset(pairs: list[ImagePair], mode: str, cached: bool) -> CropDataset:
    blind = Degradation(mode, SCALE) if mode in ("iso", "aniso") else None
    if mode != "lr_files":
        pairs = [ImagePair(pair.name, pair.hr) for pair in pairs]
    size = CACHE_BYTES if cached else 0
    return CropDataset(pairs, SCALE, PATCH, STEPS * BATCH, 0, size, degradation=blind)


def tile(folder: Path, out: Path, count: int) -> list[ImagePair]:
    """Large PNG files put together of the images of a folder, in the order of their names."""
    sources = itertools.cycle(pair.hr for pair in find_pairs(folder, SCALE))
    height, width = LARGE
    out.mkdir()
    pairs = []
    for number in range(count):
        canvas = np.zeros((height, width, 3), np.uint8)
        for top, left in itertools.product(range(0, height, 320), range(0, width, 320)):
            with Image.open(next(sources)) as image:
                piece = np.asarray(image.convert("RGB"))[:320, :320]
            part = canvas[top : top + piece.shape[0], left : left + piece.shape[1]]
            part[:] = piece[: part.shape[0], : part.shape[1]]
        Image.fromarray(canvas).save(out / f"{number:03}.png")
        pairs.append(ImagePair(f"{number:03}", out / f"{number:03}.png"))
    return pairs


def with_lr(pairs: list[ImagePair], folder: Path) -> list[ImagePair]:
    """The same pairs with LR files, made by the bicubic filter."""
    made = []
    for pair in pairs:
        path = folder / f"{pair.name}.png"
        write_image(path, load_pair(ImagePair(pair.name, pair.hr), SCALE)[0])
        made.append(ImagePair(pair.name, pair.hr, path))
    return made


def memory_mb() -> float:
    """Of this process and its children: what is their own, and their part of what they share."""
    return sum(_kilobytes(process) for process in _family(os.getpid())) / 1024


def _family(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(child for one in children for child in _family(int(one)))]


def _kilobytes(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()

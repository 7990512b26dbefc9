"""What the benchmarks share: data, crops, recipes, options, child processes, result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import drc
from drc.data.batches import BatchReader
from drc.data.crops import crop_loader
from drc.data.degrade import Degradation
from drc.data.folders import ImagePair, find_pairs
from drc.networks.dual import AnyDual
from drc.networks.traits import get_traits
from drc.settings import RecoverySettings, SearchSettings
from drc.training.dual_fit import fit_dual

RESULTS = Path(__file__).parent / "results"
WEIGHTS = Path(__file__).parent / "weights"
PACKAGES = ("torch", "fvcore", "numpy", "accelerate", "scipy")
SCALE = 4
HELD_OUT = 20
"""Images of the training folder, the last by name, on which choices are made."""

Loader = Callable[[int, int, int], Any]
"""Called as `loader(steps, start, seed)`: batches `start` to `steps` of a seed's random crops."""


def shared_folder() -> Path:
    """The folder of datasets and parity files: DRC_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("DRC_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        sys.exit(f"no datasets at {folder}; set DRC_SHARED to their folder")
    return folder


def photos(scale: int = SCALE) -> tuple[list[ImagePair], list[ImagePair]]:
    """BSDS400: the images to learn from, and the held-out ones, the last by name."""
    pairs = find_pairs(shared_folder() / "data" / "BSDS400", scale)
    return pairs[:-HELD_OUT], pairs[-HELD_OUT:]


def measured_sets() -> dict[str, Path]:
    """Set5 and Set14, which are measured on and choose nothing."""
    folder = shared_folder() / "data" / "benchmark"
    return {name: folder / name for name in ("Set5", "Set14")}


@dataclass(frozen=True)
class Crops:
    """Batches of random crops, `batch` of LR side `patch`, from a list of images."""

    pairs: list[ImagePair]
    patch: int
    batch: int
    words: str = ""
    degradation: Degradation | None = None

    def __call__(self, steps: int, start: int = 0, seed: int = 0) -> Any:
        """Batches `start` to `steps` of those that a seed draws."""
        return crop_loader(
            self.pairs, SCALE, patch=self.patch, batch=self.batch, steps=steps, seed=seed,
            start=start, degradation=self.degradation,
        )  # fmt: skip


def quality(
    model: nn.Module, sets: dict[str, Any], device: Any = None
) -> dict[str, dict[str, float]]:
    """PSNR in dB and SSIM on each set of images."""
    scores = {}
    for name, images in sets.items():
        found = drc.evaluate(model, images, device=device)
        scores[name] = {"psnr": round(found.psnr, 3), "ssim": round(found.ssim, 4)}
    return scores


def cost(model: nn.Module, lr_size: tuple[int, int] = (96, 96)) -> dict[str, int]:
    """Parameters and MACs."""
    found = drc.complexity(model, lr_size)
    return {"params": found.params, "macs": found.macs}


def train_from_scratch(
    name: str, loader: Loader, steps: int, seed: int = 0, device: Any = None
) -> tuple[nn.Module, RecoverySettings]:
    """A registered network after `steps` from initial weights to HR images, and its settings."""
    torch.manual_seed(seed)
    settings = RecoverySettings(steps=steps, distill=0.0, dual_weight=0.0, lr=4e-4)
    trained = drc.finetune(
        drc.create_model(name, SCALE),
        lambda start: loader(steps, start, seed),
        settings,
        seed=seed,
        device=device,
        progress=_say_progress,
    )
    return trained, settings


def fitted_dual(model: nn.Module, loader: Loader, seed: int = 0, device: Any = "cpu") -> AnyDual:
    """A dual model for a network that has none, fitted on eight calibration batches."""
    value_range, steps = get_traits(model).value_range, SearchSettings().dual_steps
    reader = BatchReader(loader(8, 0, seed), SCALE, value_range, device)
    return fit_dual(reader, SCALE, value_range, steps=steps, seed=seed, device=device)


def _say_progress(what: str, done: int, total: int, figures: dict[str, float]) -> None:
    if done % 100 == 0:
        print(f"{what}: {done} of {total}, loss {figures['loss']:.4g}", file=sys.stderr)


def stored_weights(name: str) -> Path:
    """The file of weights trained here."""
    return WEIGHTS / f"{name}_x{SCALE}.safetensors"


def parser(doc: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with an option for each default, of its type; a list is given as `A,B`."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, default in defaults.items():
        several = isinstance(default, list)
        made.add_argument(
            f"--{name.replace('_', '-')}",
            type=listed(type(default[0])) if several else type(default),
            default=default,
            metavar="A,B" if several else type(default).__name__.upper(),
            help=f"default: {','.join(map(str, default)) if several else default}",
        )
    return made


def listed(kind: type) -> Callable[[str], list[Any]]:
    """An option of several values between commas."""

    def values(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    values.__name__ = f"list of {kind.__name__}"  # for argparse's message
    return values


def in_own_process(*arguments: object, seconds: float | None = None) -> dict[str, Any]:
    """What the running benchmark prints last, as JSON, when it is called with other arguments.

    Where it fails or takes too long, what went wrong under the key `failure`.
    """
    command = [sys.executable, "-m", _module(), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"failure": f"did not end within {seconds:g} s"}
    if done.returncode != 0:
        return {"failure": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def median_seconds(work: Callable[[], object], runs: int) -> float:
    """Median wall time of `work`, after one run to warm up."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times), 4)


def versions(*packages: str) -> dict[str, str | None]:
    """The versions of packages; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def read_result(name: str) -> dict[str, Any]:
    """benchmarks/results/NAME.json; empty where there is none yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def write_result(name: str, values: dict[str, Any], say: bool = True) -> None:
    """Write benchmarks/results/NAME.json, whole or not at all, with command, versions and date."""
    record = {
        "command": f"python -m {shlex.join([_module(), *sys.argv[1:]])}",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {"python": platform.python_version(), **versions(*PACKAGES)},
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        **values,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(json.dumps(record, indent=2) + "\n")
    new.replace(path)
    if say:
        print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def _module() -> str:
    """The name under which the running benchmark was started with `python -m`."""
    started = getattr(sys.modules["__main__"], "__spec__", None)
    return started.name.removesuffix(".__main__") if started else Path(sys.argv[0]).stem


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((li.split(":", 1)[1].strip() for li in lines if li.startswith("model name")), "")

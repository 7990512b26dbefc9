"""The test images that compared runs share, through the networks of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean

from torch import nn

from drc.cli.display import Display
from drc.cli.session import Session, test_images
from drc.core.errors import DataError, DrcError, ModelError, RunError
from drc.data.folders import ImagePair
from drc.evaluation.inference import Inference
from drc.networks.traits import get_traits
from drc.report.compare import Comparison, dense_labels
from drc.report.gallery import Photo, choose, most_photos, photograph
from drc.report.run_files import RunFiles
from drc.report.schema import ImageQuality
from drc.settings import RunSettings
from drc.settings.reader import load_settings
from drc.store.run_folder import RunFolder

_MOST_RUNS = 50
_TAKEN = ("LR", "bicubic", "HR")  # names of the other forms of an image


@dataclass
class _Networks(Mapping[str, nn.Module]):
    """Networks that are opened when they are asked for, with how images go through each."""

    openers: dict[str, Callable[[], nn.Module]] = field(default_factory=dict)
    inference: dict[str, Inference] = field(default_factory=dict)
    channels: set[int] = field(default_factory=set)

    def add(self, name: str, opener: Callable[[], nn.Module], inference: Inference) -> None:
        """Add one that can be opened. Raises DrcError."""
        self.channels.add(get_traits(opener()).channels)
        self.openers[name], self.inference[name] = opener, inference

    def __getitem__(self, name: str) -> nn.Module:
        return self.openers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.openers)

    def __len__(self) -> int:
        return len(self.openers)


def compared_photos(
    found: Comparison, folders: Sequence[RunFolder], count: int, device: str, display: Display
) -> tuple[list[Photo], list[str]]:
    """Send the images that all runs share through every dense network and every result.

    A run whose networks or images are missing is left out, and named.

    Args:
        found: the comparison, which names the runs.
        folders: of the runs, in the same order.
        count: of the images.
        device: where to run.
        display: shows the progress.

    Returns:
        The photos, none where there is nothing to show, and sentences that say what is missing.
    """
    if not count:
        return [], []
    if len(found.runs) > _MOST_RUNS:
        return [], [f"no photos: of more than {_MOST_RUNS} runs the page would grow too large"]
    if len({run.report.scale for run in found.runs}) > 1:
        return [], ["no photos: the runs have different scales"]
    problems: list[str] = []
    try:
        return _photos(found.runs, folders, count, device, display, problems), problems
    except DrcError as error:  # the figures are worth a page without photos
        return [], [*problems, f"no photos: {error}"]


def _photos(
    runs: Sequence[RunFiles],
    folders: Sequence[RunFolder],
    count: int,
    device: str,
    display: Display,
    problems: list[str],
) -> list[Photo]:
    dense, results, images, shown = _Networks(), _Networks(), [], []
    labels = dense_labels(runs)
    for run, folder, label in zip(runs, folders, labels, strict=True):
        name = run.name
        while name in {"dense", *_TAKEN, *labels, *results}:
            name = f"run {name}"
        try:
            settings = load_settings(None, {}, folder.read_config())
            session = Session(settings, display, "drc report", folder)
            path = folder.finetuned_path if run.report.recovered else folder.pruned_path
            pairs = test_images(session.test_data, run.report.scale)
            results.add(name, partial(session.saved, path), session.inference)
        except DrcError as error:
            problems.append(f"no photos of {run.name}: {error}")
            continue
        images.append(pairs)
        shown.append(run)
        dense_name = label if len(set(labels)) > 1 else "dense"
        if dense_name not in dense:
            try:
                opener = partial(_dense, settings, display)
                dense.add(dense_name, opener, session.inference)
            except DrcError as error:
                problems.append(f"no photos of {dense_name}: {error}")
    networks = _Networks(dense.openers | results.openers, dense.inference | results.inference)
    shared = _shared(images)
    if len(networks) < 2:
        raise RunError("there are no two networks to compare")
    if not shared:
        raise DataError("there are no test images that all runs were measured on")
    if len(dense.channels | results.channels) > 1:
        raise ModelError("the networks take images of different numbers of channels")
    return photograph(
        networks,
        choose(shared, _figures(shown), min(count, most_photos(len(networks)))),
        compared=list(results) if len(results) > 1 else (),
        inference=networks.inference,
        device=device,
        progress=display,
    )


def _dense(settings: RunSettings, display: Display) -> nn.Module:
    return Session(settings, display, "drc report").network


def _shared(images: Sequence[Sequence[ImagePair]]) -> list[ImagePair]:
    """Those of the first list whose files are in all lists."""

    def files(pair: ImagePair) -> tuple[str, Path, Path | None]:
        return pair.name, pair.hr.resolve(), pair.lr and pair.lr.resolve()

    if not images:
        return []
    others = [set(map(files, pairs)) for pairs in images[1:]]
    return [pair for pair in images[0] if all(files(pair) in other for other in others)]


def _figures(runs: Sequence[RunFiles]) -> list[ImageQuality]:
    """What the images lost, mean over the runs; of images that all of them measured."""
    lost: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        for image in run.report.data.images:
            if image.psnr_before is not None and image.psnr_after is not None:
                lost.setdefault(image.name, []).append((image.psnr_before, image.psnr_after))
    return [
        ImageQuality(
            name=name,
            psnr_before=fmean(before for before, _ in figures),
            psnr_after=fmean(after for _, after in figures),
        )
        for name, figures in lost.items()
        if len(figures) == len(runs)
    ]

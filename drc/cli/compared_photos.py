"""The test images that compared runs share, through the networks of all of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from drc.settings.reader import load_settings
from drc.settings.runs import RunSettings
from drc.store.run_folder import RunFolder

_MOST_RUNS = 50
_ROOM = 100_000_000  # parameters that are kept in memory, 0.4 GB; others are read for each image
_TAKEN = ("LR", "bicubic", "HR")  # names of the other forms of an image


@dataclass(frozen=True)
class _Source:
    """A network: how to open it, and how images go through it."""

    open: Callable[[], nn.Module]
    inference: Inference


@dataclass(frozen=True)
class _Shown:
    """What the page shows of a run: its result, under a name of its own, and what lies behind."""

    run: RunFiles
    name: str
    result: _Source
    dense_name: str
    dense: _Source
    images: list[ImagePair]


class _Networks(Mapping[str, nn.Module]):
    """Networks that are opened when they are asked for, and kept while there is room."""

    def __init__(self, sources: dict[str, _Source]) -> None:
        self.sources = sources
        self._kept: dict[str, nn.Module] = {}
        self._room = _ROOM

    def __getitem__(self, name: str) -> nn.Module:
        if name in self._kept:
            return self._kept[name]
        network = self.sources[name].open()
        size = sum(p.numel() for p in network.parameters())
        if size <= self._room:
            self._room -= size
            self._kept[name] = network
        return network

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


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
        display: told of the progress.

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
        runs = list(_openable(found, folders, display, problems))
        return _photos(runs, count, device, display, problems), problems
    except DrcError as error:  # the figures are worth a page without photos
        return [], [*problems, f"no photos: {error}"]


def _openable(
    found: Comparison, folders: Sequence[RunFolder], display: Display, problems: list[str]
) -> Iterator[_Shown]:
    labels = dense_labels(found.runs)
    taken = {"dense", *_TAKEN, *labels}
    for run, folder, label in zip(found.runs, folders, labels, strict=True):
        try:
            settings = load_settings(None, {}, folder.read_config())
            session = Session(settings, display, "drc report", folder)
            path = folder.finetuned_path if run.report.recovered else folder.pruned_path
            shown = _Shown(
                run=run,
                name=_free(run.name, taken),
                result=_Source(partial(session.saved, path), session.inference),
                dense_name=label if len(set(labels)) > 1 else "dense",
                dense=_Source(partial(_dense, settings, display), session.inference),
                images=test_images(session.test_data, run.report.scale),
            )
        except DrcError as error:
            problems.append(f"no photos of {run.name}: {error}")
        else:
            taken.add(shown.name)
            yield shown


def _free(name: str, taken: Container[str]) -> str:
    """The name of a run, or one like it that nothing else on the page has."""
    while name in taken:
        name = f"run {name}"
    return name


def _photos(
    runs: Sequence[_Shown], count: int, device: str, display: Display, problems: list[str]
) -> list[Photo]:
    networks = _Networks({run.dense_name: run.dense for run in runs})
    networks.sources |= {run.name: run.result for run in runs}
    channels = set(_channels(networks, problems))
    runs = [run for run in runs if run.name in networks]
    pairs = _shared([run.images for run in runs])
    if len(networks) < 2:
        raise RunError("there are no two networks to compare")
    if not pairs:
        raise DataError("there are no test images that all runs were measured on")
    if len(channels) > 1:
        raise ModelError("the networks take images of different numbers of channels")
    figures = _figures([run.run for run in runs])
    return photograph(
        networks,
        choose(pairs, figures, min(count, most_photos(len(networks)))),
        compared=[run.name for run in runs] if len(runs) > 1 else (),
        inference={name: source.inference for name, source in networks.sources.items()},
        device=device,
        progress=display,
    )


def _channels(networks: _Networks, problems: list[str]) -> Iterator[int]:
    """Those of the images of each network; one that cannot be opened is left out, and told."""
    for name in list(networks):
        try:
            yield get_traits(networks[name]).channels
        except DrcError as error:
            problems.append(f"no photos of {name}: {error}")
            del networks.sources[name]


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


__all__ = ["compared_photos"]

"""The papers' networks before and after compression: published figures beside measured ones."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import IO, Any

import yaml
from torch import nn

from drc.core.errors import DataError, DrcError, UsageError
from drc.core.runtime import Progress
from drc.data.folders import ImagePair, find_pairs
from drc.evaluation.benchmark import Evaluation, evaluate
from drc.evaluation.complexity import complexity
from drc.evaluation.inference import Inference
from drc.networks.registry import get_preset
from drc.networks.weights import create_model, locate
from drc.report.table import MISSING, Table, console, print_facts

BLIND = "DIV2KRK"


@dataclass(frozen=True)
class Published:
    """One network of the papers.

    Attributes:
        model: registered name.
        scale: HR side over LR side.
        params: parameters, those of a dual model not counted.
        macs_g: 10^9 multiply-adds at LR 96x96.
        data: test set of the quality.
        psnr: dB on the Y channel.
        ssim: on the Y channel, None where it is not published.
        dense: the network that it is the compressed form of; None for a dense one.
    """

    model: str
    scale: int
    params: int
    macs_g: float
    data: str
    psnr: float
    ssim: float | None = None
    dense: str | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured of one network now.

    Attributes:
        params: parameters of the registered network.
        macs: multiply-adds at LR 96x96, by `counter`.
        counter: the counter, with its version.
        weights: the file that quality was measured with, None without one.
        quality: data set -> `(psnr, ssim)`.
        problem: why some or all quality is missing, in one line; empty where none is.
    """

    params: int
    macs: int
    counter: str
    weights: str | None = None
    quality: dict[str, tuple[float, float]] = field(default_factory=dict)
    problem: str = ""


Row = tuple[Published, Measured]


def published() -> list[Published]:
    """The networks of the table, each dense one before its compressed forms."""
    text = resources.files("drc.report").joinpath("paper.yaml").read_text("utf-8")
    return [Published(**entry) for entry in yaml.safe_load(text)]


def measure(
    data: Path | str | None = None,
    weights: Mapping[str, str] | None = None,
    *,
    only: Container[str] | None = None,
    device: str = "auto",
    inference: Inference | None = None,
    progress: Progress | None = None,
) -> Iterator[Row]:
    """Measure the networks of the table one after the other.

    Args:
        data: what holds the test sets: Set5 and its kin for plain SR, DIV2KRK for blind SR, in the
            layouts of `find_pairs`; None to measure no quality.
        weights: checkpoint files by `NAME` or `NAME_xSCALE`; the others are the published ones,
            downloaded when they have to be.
        only: names of the networks to measure; all by default.
        device: auto, cpu or cuda:N.
        inference: how test images go through the networks; whole by default.
        progress: of downloads and measurements.

    Raises:
        UsageError: weights for a network that the table does not have.
        DataError: there is no folder `data`.
    """
    given = dict(weights or {})
    entries = published()
    known = {name for entry in entries for name in (entry.model, _key(entry))}
    if unknown := sorted(given.keys() - known):
        raise UsageError(f"the table has no {unknown[0]}; it has {', '.join(sorted(known))}")
    if data is not None and not Path(data).is_dir():
        raise DataError(f"{data}: no such folder")
    ways = (inference or Inference()).arguments()
    score = partial(evaluate, device=device, progress=progress, **ways)
    for entry in entries:
        if only is None or entry.model in only:
            file = given.get(_key(entry), given.get(entry.model)) or "default"
            yield entry, _measure(entry, data, file, score, progress)


def _key(entry: Published) -> str:
    return f"{entry.model}_x{entry.scale}"


def _measure(
    entry: Published,
    data: Path | str | None,
    file: str,
    score: Callable[[nn.Module, list[ImagePair]], Evaluation],
    progress: Progress | None,
) -> Measured:
    cost = complexity(create_model(entry.model, entry.scale))
    found = Measured(cost.params, cost.macs, cost.counter)
    if data is None:
        return replace(found, problem="no test data were given (--data)")
    sets = _test_sets(Path(data), entry)
    if not sets:
        return replace(found, problem=f"{data} holds no {entry.data} for x{entry.scale}")
    quality, problem = {}, ""
    try:
        path = locate(get_preset(entry.model), entry.scale, file, progress)
        model = create_model(entry.model, entry.scale, weights=path)
    except DrcError as error:
        return replace(found, problem=str(error))
    for name, pairs in sets.items():
        try:
            result = score(model, pairs)
        except DrcError as error:
            problem = str(error)
        else:
            quality[name] = (result.psnr, result.ssim)
    return replace(found, weights=str(path), quality=quality, problem=problem)


def _test_sets(root: Path, entry: Published) -> dict[str, list[ImagePair]]:
    """The test sets under `root` that are meant for this network, by name."""
    blind = entry.data == BLIND
    for folder in [root / BLIND, root] if blind else [root]:
        if blind != (folder / "gt").is_dir():
            continue
        try:
            pairs = find_pairs(folder, entry.scale, "test")
        except DataError:
            continue
        sets: dict[str, list[ImagePair]] = {}
        for pair in pairs:
            name, _, _ = pair.name.rpartition("/")
            sets.setdefault(name or (BLIND if blind else folder.name), []).append(pair)
        return sets
    return {}


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The table as plain values, with the differences."""
    return [
        {
            "published": asdict(entry),
            "measured": asdict(found),
            "params_difference": found.params - entry.params,
            "macs_difference": found.macs / 1e9 / entry.macs_g - 1,
        }
        for entry, found in rows
    ]


def print_paper(rows: Sequence[Row], file: IO[str]) -> None:
    """Write the table and, below it, why cells are empty and what the columns mean."""
    out = console(file, plain_width=150)
    table = _table(rows).rich()
    for row, (following, _) in zip(table.rows, rows[1:], strict=False):
        row.end_section = following.dense is None  # the next network is of another family
    out.print(table)
    print_facts(out, _problems(rows), wrap=False)
    counter = rows[0][1].counter if rows else ""
    out.print(
        f"params and MACs (LR 96x96, counted by {counter}) are of networks built now; paper: as "
        "published; a dual model is not counted; PSNR and SSIM on Y, 8 bits, no border of the scale"
    )


def _table(rows: Sequence[Row]) -> Table:
    sets = list(dict.fromkeys(name for _, found in rows for name in found.quality))
    headings = ("params", "paper", "differ", "removed", "G MACs", "paper", "differ", "removed")
    by_name = {(entry.model, entry.scale): found for entry, found in rows}
    cells = [
        list(_cells(entry, found, by_name.get((entry.dense or "", entry.scale)), sets))
        for entry, found in rows
    ]
    title = "The papers' networks before and after compression"
    return Table(("network", *headings, "paper PSNR / SSIM", *sets), cells, title)


def _cells(
    entry: Published, found: Measured, dense: Measured | None, sets: Sequence[str]
) -> Iterator[str]:
    yield f"{'  ' if entry.dense else ''}{entry.model} x{entry.scale}"
    yield f"{found.params:,}"
    yield f"{entry.params:,}"
    yield f"{found.params - entry.params:+,}" if found.params != entry.params else "0"
    yield MISSING if dense is None else f"{1 - found.params / dense.params:.1%}"
    yield f"{found.macs / 1e9:.2f}"
    yield f"{entry.macs_g:.2f}"
    yield f"{found.macs / 1e9 / entry.macs_g - 1:+.2%}"
    yield MISSING if dense is None else f"{1 - found.macs / dense.macs:.1%}"
    ssim = MISSING if entry.ssim is None else f"{entry.ssim:.3f}"
    yield f"{entry.data} {entry.psnr:.2f} / {ssim}"
    for name in sets:
        quality = found.quality.get(name)
        yield MISSING if quality is None else f"{quality[0]:.2f} / {quality[1]:.4f}"


def _problems(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Each reason once, with the networks it holds for."""
    reasons: dict[str, list[str]] = {}
    for entry, found in rows:
        if found.problem:
            reasons.setdefault(found.problem, []).append(f"{entry.model} x{entry.scale}")
    for problem, names in reasons.items():
        every = len(names) == len(rows)
        yield ("no quality measured" if every else f"not measured, {', '.join(names)}"), problem

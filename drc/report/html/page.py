"""The page of one run: what `report.html` shows, gathered for its template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from drc.report.gallery import Photo
from drc.report.html.charts import Chart, line_chart, plan_chart
from drc.report.html.front import Front, front
from drc.report.html.pictures import PhotoView, view
from drc.report.html.render import render
from drc.report.points import (
    kept_channels,
    plan_front,
    quality_charts,
    share,
    training_charts,
)
from drc.report.rows import MISSING, Row, facts, giga, headings, rows, times, title
from drc.report.run_files import RunFiles
from drc.report.schema import Report


@dataclass(frozen=True)
class Recipe:
    """How to do it again.

    Attributes:
        settings: `settings.yaml`, which the commands read; empty for none.
        commands: the lines to type.
        seed: of every random choice; None where it is not known.
    """

    settings: str
    commands: list[str]
    seed: int | None = None


@dataclass(frozen=True)
class Card:
    """A figure to see first."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Group:
    """One bar of the plan."""

    name: str
    keep: int
    of: int
    share: int

    @property
    def percent(self) -> float:
        return 100 * self.keep / self.of


@dataclass(frozen=True)
class Page:
    """Everything on the page of one run, in the order of the page."""

    title: str
    report: Report
    cards: list[Card]
    warnings: list[str]
    notes: list[str]
    headings: tuple[str, ...]
    rows: list[Row]
    facts: list[tuple[str, str]]
    kept: str
    plan: Markup
    groups: list[Group]
    plans: Front | None
    front: Front
    curves: list[Chart]
    photos: list[PhotoView]
    images: list[tuple[str, ...]]
    image_headings: tuple[str, ...]
    environment: list[tuple[str, str]]
    recipe: Recipe | None
    times: list[tuple[str, str]] = field(default_factory=list)


def page(
    run: RunFiles, photos: Sequence[Photo] = (), recipe: Recipe | None = None, *,
    photo_problem: str = "",
) -> str:  # fmt: skip
    """The HTML text of a run's page.

    Args:
        run: what its folder holds.
        photos: the test images through its networks.
        recipe: the commands that made it.
        photo_problem: why there are no photos, a sentence.
    """
    report, plans = run.report, plan_front(run)
    told = set(run.plan.notes) if run.plan else set()
    problems = [*run.problems, *([photo_problem] if photo_problem else [])]
    return render(
        "report.html",
        page=Page(
            title=title(report),
            report=report,
            cards=list(_cards(report)),
            warnings=[*(n for n in report.notes if n not in told), *_missing(report), *problems],
            notes=[note for note in report.notes if note in told],
            headings=headings(report),
            rows=list(rows(report)),
            facts=list(facts(report)),
            kept=_kept(report),
            plan=plan_chart(report.plan.groups),
            groups=groups(report),
            plans=front([plans], joined=True) if plans is not None else None,
            front=front(quality_charts([run])),
            curves=[
                Chart(chart.title, line_chart(chart))
                for curve in run.curves
                for chart in training_charts(curve)
            ],
            photos=[view(photo) for photo in photos],
            images=list(_images(report)),
            image_headings=_image_headings(report),
            environment=list(environment(report, recipe)),
            recipe=recipe,
            times=list(times(report)),
        ),
    )


def _cards(report: Report) -> Iterator[Card]:
    """What was won and lost; figures that were not measured have no card."""
    before, after = report.before, report.after
    found = {row.name.partition(" (")[0]: row for row in rows(report)}
    change = {name: row.change.replace("-", "\N{MINUS SIGN}") for name, row in found.items()}
    widths = f"{_short(before.params)} → {_short(after.params)}"
    yield Card("parameters", change["parameters"], widths)
    yield Card("MACs", change["MACs"], f"{giga(before.macs)} → {giga(after.macs)}")
    if before.latency_ms and after.latency_ms:
        digits = 1 if before.latency_ms < 1000 else 0  # a card is narrow
        shown = f"{before.latency_ms:,.{digits}f} → {after.latency_ms:,.{digits}f} ms"
        yield Card("latency", change["latency"], shown)
        detail = f"of {before.macs / after.macs:.2f}x by MACs"
        yield Card("speed-up", f"{before.latency_ms / after.latency_ms:.2f}x", detail)
    for name, unit in (("PSNR", " dB"), ("SSIM", "")):
        row = found[name]
        if row.change != MISSING:
            yield Card(name, change[name] + unit, f"{row.before} → {row.after}{unit}")


def _short(params: int) -> str:
    return f"{params / 1e6:.2f} M" if params >= 1e6 else f"{params / 1e3:.1f} K"


def _kept(report: Report) -> str:
    keep, of = kept_channels(report)
    return f"{keep:,} of {of:,} removable channels stay ({keep / of:.1%})." if of else ""


def _missing(report: Report) -> Iterator[str]:
    """What the figures lack, where the report's own notes do not say it."""
    after, base = report.after, report.bicubic
    if not report.data.images:
        yield "PSNR and SSIM were not measured: there were no test images"
    elif len(report.data.images) < 5:
        count = len(report.data.images)
        images = "one image" if count == 1 else f"{count} images"
        yield f"PSNR and SSIM are means over {images}; measure on a benchmark before you publish"
    if report.latency is None:
        yield "latency was not measured"
    if after.psnr is not None and base.psnr is not None and after.psnr < base.psnr:
        yield f"the result is worse than bicubic enlargement ({base.psnr:.2f} dB)"


def groups(report: Report) -> list[Group]:
    """The bars of the plan."""
    found = report.plan.groups.items()
    return [Group(name, keep, of, share(keep, of)) for name, (keep, of) in found]


def _image_headings(report: Report) -> tuple[str, ...]:
    heads = ["PSNR before", "PSNR after", "change", "SSIM before", "SSIM after"]
    kernels = ["kernel error before", "kernel error after"]
    return tuple(heads + (kernels if report.kernel_error is not None else []))


def _images(report: Report) -> Iterator[tuple[str, ...]]:
    for image in report.data.images:
        before, after = image.psnr_before, image.psnr_after
        apart = None
        if before is not None and after is not None:
            apart = round(after, 2) - round(before, 2)
        cells = [_cell(before, 2), _cell(after, 2), MISSING if apart is None else f"{apart:+.2f}"]
        cells += [_cell(image.ssim_before, 4), _cell(image.ssim_after, 4)]
        if report.kernel_error is not None:
            errors = (image.kernel_error_before, image.kernel_error_after)
            cells += [_cell(error, 3) for error in errors]
        yield image.name, *cells


def _cell(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def environment(report: Report, recipe: Recipe | None = None) -> Iterator[tuple[str, str]]:
    """Versions, machine and seed."""
    yield "made by", f"{report.command}, {report.created}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())
    if report.machine:
        yield "machine", report.machine
    if report.latency is not None:
        threads = report.latency.threads
        yield "timed on", f"{report.latency.device}, {threads} CPU thread{'s'[: threads != 1]}"
    if recipe is not None and recipe.seed is not None:
        yield "seed", str(recipe.seed)


__all__ = ["Card", "Group", "Page", "Recipe", "environment", "groups", "page"]

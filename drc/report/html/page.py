"""The pages: `report.html` of one run and `compare.html` of several, gathered for their templates.

A page is one file: styles, script, charts and photos are all inside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from drc import __version__
from drc.report.compare import Comparison, figures_table, images_table
from drc.report.gallery import Photo
from drc.report.html.charts import lines_figure, plan_figure, scatter_figure
from drc.report.html.photos import QUALITY, view
from drc.report.html.points import (
    loss_chart,
    plan_curve,
    quality_charts,
    share,
    training_charts,
)
from drc.report.pictures import GAIN, ramp_css
from drc.report.run_files import RunFiles
from drc.report.schema import Report
from drc.report.table import MISSING, giga
from drc.report.text import facts, frozen, images, summary, times, title


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
    report, plans, quality = run.report, plan_curve(run), quality_charts([run])
    of_plan = set(run.plan.notes) if run.plan else set()
    problems = [*run.problems, *([photo_problem] if photo_problem else [])]
    return _render(
        "report.html",
        title=title(report),
        report=report,
        cards=list(_cards(report)),
        warnings=[*(n for n in report.notes if n not in of_plan), *_missing(report), *problems],
        notes=[note for note in report.notes if note in of_plan],
        summary=summary(report),
        facts=list(facts(report)),
        kept=_kept(report),
        plan=plan_figure("", report.plan.groups),
        frozen=frozen(report),
        plans=scatter_figure([plans], joined=True) if plans is not None else None,
        quality=scatter_figure(quality) if quality else None,
        training=lines_figure(training_charts(run)),
        photos=[view(photo) for photo in photos],
        images=images(report),
        environment=list(_environment(report, recipe)),
        recipe=recipe,
        times=times(report),
    )


def comparison_page(
    found: Comparison, photos: Sequence[Photo] = (), photo_problems: Sequence[str] = ()
) -> str:
    """The HTML text of `compare.html`.

    Args:
        found: the runs.
        photos: the test images that they share through their networks.
        photo_problems: why photos are missing, a sentence each.
    """
    runs, quality = found.runs, quality_charts(found.runs)
    networks = dict.fromkeys(run.report.network for run in runs)
    return _render(
        "compare.html",
        title=f"{len(runs)} runs compared: {', '.join(networks)}",
        figures=figures_table(runs),
        notes=[*found.notes, *photo_problems],
        quality=scatter_figure(quality) if quality else None,
        training=lines_figure(loss_chart(runs)),
        runs=[
            {
                "name": run.name,
                "report": run.report,
                "plan": plan_figure("", run.report.plan.groups),
                "environment": [("folder", folder), *_environment(run.report)],
            }
            for run, folder in zip(runs, found.folders, strict=True)
        ],
        photos=[view(photo) for photo in photos],
        images=images_table(runs),
        version=__version__,
    )


def _cards(report: Report) -> Iterator[tuple[str, str, str]]:
    """What was won and lost, as name, figure and detail; what was not measured has no card."""
    before, after = report.before, report.after
    rows = {name.partition(" (")[0]: cells for name, *cells in summary(report).rows}
    change = {name: cells[-1].replace("-", "\N{MINUS SIGN}") for name, cells in rows.items()}
    yield "parameters", change["parameters"], f"{_short(before.params)} → {_short(after.params)}"
    yield "MACs", change["MACs"], f"{giga(before.macs)} → {giga(after.macs)}"
    if before.latency_ms and after.latency_ms:
        digits = 1 if before.latency_ms < 1000 else 0  # a card is narrow
        shown = f"{before.latency_ms:,.{digits}f} → {after.latency_ms:,.{digits}f} ms"
        yield "latency", change["latency"], shown
        by_macs = f"of {before.macs / after.macs:.2f}x by MACs"
        yield "speed-up", f"{before.latency_ms / after.latency_ms:.2f}x", by_macs
    for name, unit in (("PSNR", " dB"), ("SSIM", "")):
        old, _, new, changed = rows[name]
        if changed != MISSING:
            yield name, change[name] + unit, f"{old} → {new}{unit}"


def _short(params: int) -> str:
    return f"{params / 1e6:.2f} M" if params >= 1e6 else f"{params / 1e3:.1f} K"


def _kept(report: Report) -> str:
    widths = report.plan.groups.values()
    keep, of = sum(keep for keep, _ in widths), sum(of for _, of in widths)
    return f"{keep:,} of {of:,} removable channels stay ({keep / of:.1%})." if of else ""


def _missing(report: Report) -> Iterator[str]:
    """What the figures lack, where the report's own notes do not say it."""
    after, base = report.after, report.bicubic
    if not report.data.images:
        yield "PSNR and SSIM were not measured: there were no test images"
    elif len(report.data.images) < 5:
        count = len(report.data.images)
        number = "one image" if count == 1 else f"{count} images"
        yield f"PSNR and SSIM are means over {number}; measure on a benchmark before you publish"
    if report.latency is None:
        yield "latency was not measured"
    if after.psnr is not None and base.psnr is not None and after.psnr < base.psnr:
        yield f"the result is worse than bicubic enlargement ({base.psnr:.2f} dB)"


def _environment(report: Report, recipe: Recipe | None = None) -> Iterator[tuple[str, str]]:
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


def _render(template: str, **values: Any) -> str:
    """Fill in a template of the package; every text is escaped."""
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("drc.report.html", "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.globals.update(
        style=Markup(template_text("charts.css") + template_text("style.css")),
        script=Markup(template_text("page.js")),
        gain=GAIN,
        ramp=ramp_css(),
        quality_of_photos=QUALITY,
        share=share,
    )
    return made


def template_text(name: str) -> str:
    """A style sheet or script of the page."""
    return (resources.files("drc.report.html") / "templates" / name).read_text("utf-8")

"""The charts of the page as PNG files: the same SVG, drawn by resvg (an extra)."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from markupsafe import Markup
from PIL import ImageFont

from drc.core.errors import UsageError
from drc.core.files import write_bytes
from drc.report.html.charts import Figure, lines_figure, plan_figure, scatter_figure
from drc.report.html.page import template_text
from drc.report.html.points import plan_curve, quality_charts, training_charts
from drc.report.html.svg import element, picture
from drc.report.run_files import RunFiles

_GAP, _LINE = 20.0, 22.0  # pixels: around charts, and height of a line of text
_LETTER = 7.0  # width of a letter, about
_ZOOM = 2


def require_resvg() -> None:
    """Raise UsageError unless resvg is installed."""
    if importlib.util.find_spec("resvg_py") is None:
        raise UsageError("plots need resvg: pip install 'drc-sr[plots]', or leave --png out")


def save_plots(runs: Sequence[RunFiles], folder: Path) -> list[Path]:
    """Write `front.png` and, of a single run, `plan.png` and `training.png`.

    A plot without data is left out.

    Returns:
        The files that were written.

    Raises:
        UsageError: resvg is not installed.
        RunError: a file cannot be written.
    """
    require_resvg()
    import resvg_py

    written = []
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        font = Path(temporary) / "font.ttf"
        font.write_bytes(_font())
        for name, figures in _plots(runs):
            drawn = resvg_py.svg_to_bytes(
                svg_string=sheet(figures),
                style_sheet=_style(),
                background="white",
                zoom=_ZOOM,
                font_files=[str(font)],
                sans_serif_family="Aileron",
            )
            write_bytes(folder / name, drawn)
            written.append(folder / name)
    return written


def _font() -> bytes:
    """The font that Pillow carries, for machines that have none."""
    font = ImageFont.load_default(12)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise UsageError("plots need a Pillow with FreeType, as its wheels have it")
    return font.font_bytes


def _style() -> str:
    """The style sheet of the charts, with the colours of the light page in place of variables."""
    colours = re.findall(r"(--[\w-]+): (#\w+)", template_text("style.css").partition("}")[0])
    style = template_text("charts.css")
    for name, colour in colours:
        style = style.replace(f"var({name})", colour)
    return style


def _plots(runs: Sequence[RunFiles]) -> Iterator[tuple[str, list[Figure]]]:
    """The names of the files, and what is drawn into each, from top to bottom."""
    quality = quality_charts(runs)
    curves = [scatter_figure(quality)] if quality else []
    if len(runs) > 1:
        if curves:
            yield "front.png", curves
        return
    (run,) = runs
    report = run.report
    if report.plan.groups:
        yield "plan.png", [plan_figure(f"{report.network}: channels kept", report.plan.groups)]
    plans = plan_curve(run)
    if plans is not None:
        curves.insert(0, scatter_figure([plans], joined=True))
    if curves:
        yield "front.png", curves
    training = training_charts(run)
    if training:
        yield "training.png", [lines_figure(training)]


def sheet(figures: Sequence[Figure]) -> str:
    """Figures below each other as one SVG: of each its charts in a row, and the key."""
    width = _GAP + max(sum(c.width + _GAP for c in figure.charts) for figure in figures)
    parts: list[Markup] = []
    top = _GAP
    for figure in figures:
        left = _GAP
        for chart in figure.charts:
            parts.append(element("text", chart.title, x=left, y=top + 4, class_="name title"))
            parts.append(_moved(chart.drawing, left, top + _LINE / 2))
            left += chart.width + _GAP
        top += _LINE + max(chart.height for chart in figure.charts) + _GAP / 2
        row = -1
        for left, row, mark, text in _key(figure, width):
            parts.append(_moved(mark, left, top + row * _LINE - 12))
            parts.append(element("text", text, x=left + 22, y=top + row * _LINE, class_="name"))
        top += _LINE * (row + 1) + _GAP / 2
    title = "; ".join(chart.title for figure in figures for chart in figure.charts)
    return picture(width, top, title, parts)


def _key(figure: Figure, width: float) -> Iterator[tuple[float, int, Markup, str]]:
    """Each entry of the key, in columns: its left end, its row, its mark and its words."""
    entries = [(mark, f"{n}  {name}") for mark, n, name in figure.numbers] or figure.key
    column = 44 + _LETTER * max((len(text) for _, text in entries), default=0)
    columns = max(1, int((width - _GAP) / column))
    for index, (mark, text) in enumerate(entries):
        yield _GAP + index % columns * column, index // columns, mark, text


def _moved(drawing: Markup, x: float, y: float) -> Markup:
    return element("g", drawing, transform=f"translate({x:.1f} {y:.1f})")

"""Templates to one self-contained page: styles, script, charts and photos are all inside it."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from drc.report.gallery import GAIN, ramp_css
from drc.report.html.pictures import QUALITY
from drc.report.points import SHARES


def render(template: str, **values: Any) -> str:
    """Fill in a template of the package; every text is escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    loader = PackageLoader("drc.report.html", "templates")
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.globals.update(
        style=Markup(_source(loader, made, "style.css")),
        script=Markup(_source(loader, made, "page.js")),
        shares=SHARES,
        gain=GAIN,
        ramp=ramp_css(),
        quality=QUALITY,
    )
    return made


def _source(loader: PackageLoader, environment: Environment, name: str) -> str:
    return loader.get_source(environment, name)[0]


__all__ = ["render"]

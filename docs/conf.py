"""The documentation site: `sphinx-build -W --keep-going -b html docs docs/_build/html`.

Pages are Markdown that reads as well on a code host; the reference comes from docstrings and the
command line, the tables of `benchmarks.md` from `benchmarks/results/`. Any warning fails CI.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import drc  # noqa: E402

project = "drc"
author = "the drc authors"
copyright = author
version = release = drc.__version__
language = "en"
smartquotes = False  # two dashes are an option, not a dash
maximum_signature_line_length = 100

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "benchmark_tables",
    "command_line",
    "outside_links",
    "settings_tables",
]
exclude_patterns = ["_build", "_ext"]

html_theme = "furo"
html_title = f"drc {release}"
html_show_copyright = False

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = {"math"}  # formulas of their own, as code hosts write them
myst_heading_anchors = 4  # the anchors that code hosts make, for links such as page.md#a-heading

default_role = "literal"  # docstrings write `code` in single backticks
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"  # fields are listed with what they mean instead
autodoc_preserve_defaults = True  # arguments' defaults as they stand in the code
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True

"""Links of a page to files and folders outside docs/, such as `../examples/step_by_step.py`.

On a code host they lead to the file. On the site a file is a download, and a folder, which cannot
be downloaded, is plain text. A link to something that is not there stays a warning.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

BEFORE_DOWNLOADS = 400
"""Sphinx collects what is to be downloaded at its default priority, 500."""


def mend_links(app: Sphinx, doctree: nodes.document) -> None:
    """Turn Markdown's links that leave docs/ into downloads or text, in place."""
    page = Path(app.env.doc2path(app.env.docname))
    for link in list(doctree.findall(addnodes.pending_xref)):
        if link["reftype"] != "myst":
            continue
        target = link["reftarget"]
        if link["refdomain"] == "doc":  # a page of another folder, without its suffix
            path = Path(app.srcdir, f"{target}.md").resolve()
        else:
            path = (page.parent / target.partition("#")[0]).resolve()
        if path.is_relative_to(app.srcdir):
            continue
        if path.is_file():
            place = "/" + os.path.relpath(path, app.srcdir)
            download = addnodes.download_reference("", "", reftarget=place)
            download["refdoc"], download["refexplicit"] = app.env.docname, True
            download.extend(link.children)
            link.replace_self(download)
        elif path.is_dir():
            link.replace_self(link.children)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", mend_links, priority=BEFORE_DOWNLOADS)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

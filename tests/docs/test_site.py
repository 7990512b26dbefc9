"""The documentation builds as a site, without a warning, and every page is in its contents."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.docs import COMMANDS, DOCS, PAGES, ROOT, page_name

import drc
from drc.settings import RunSettings

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None,
    reason="needs the extra docs: pip install -e '.[docs]'",
)


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build as CI does, warnings being errors."""
    command = ["sphinx", "-q", "-W", "--keep-going", "-b", "html", source, site]
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = build(DOCS, folder)
    assert result.returncode == 0, result.stderr
    return folder


def text_of(page: Path) -> str:
    """What a reader sees of a page, without tags."""
    article = re.search(r"<article.*?</article>", page.read_text("utf-8"), re.DOTALL)
    assert article, page
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", article[0]))


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_every_page_is_built_and_in_the_contents(path, site):
    page = page_name(path).replace(".md", ".html")
    assert (site / page).is_file()
    contents = (site / "index.html").read_text("utf-8")
    sidebar = contents[contents.index("sidebar-tree") :].split("</aside>")[0]
    assert page == "index.html" or f'href="{page}"' in sidebar


def test_reference_holds_every_public_name_command_and_setting(site):
    api = (site / "reference" / "api.html").read_text("utf-8")
    assert not [name for name in drc.__all__ if f'id="drc.{name}"' not in api]
    commands = (site / "reference" / "command_line.html").read_text("utf-8")
    assert not [name for name in COMMANDS if f'id="drc-{name}"' not in commands]
    settings = text_of(site / "reference" / "settings.html")
    nested = [info.annotation.model_fields for name, info in RunSettings.model_fields.items()
              if name in ("data", "search", "prune", "recovery", "report")]  # fmt: skip
    names = {name for fields in [RunSettings.model_fields, *nested] for name in fields}
    assert not [name for name in names if f" {name} " not in settings]


def test_formulas_are_formulas(site):
    page = (site / "method.html").read_text("utf-8")
    assert page.count('class="math notranslate') > 40
    assert "$" not in re.sub(r"<script.*?</script>", "", text_of(site / "method.html"))


def test_benchmark_tables_show_what_is_in_the_files(site):
    text = text_of(site / "benchmarks.html")
    results = ROOT / "benchmarks" / "results"
    named = re.findall(
        r"^```{benchmark} (\w+)$", (DOCS / "benchmarks.md").read_text(), re.MULTILINE
    )
    assert len(named) >= 11
    for name in named:
        result = json.loads((results / f"{name}.json").read_text())
        assert result["date"] in text
        assert result["command"] in text
    craft = json.loads((results / "rivals_craft_x4.json").read_text())
    ours = next(row for row in craft["rows"] if row["method"] == "ours")
    assert f"{ours['after']['0']['Set5']['psnr']:.2f}" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda result: result.pop("networks"), "has no key 'networks'"),
        (lambda result: result.update(networks=[]), "has no rows"),
        (lambda result: result["networks"][0].update(asked="much"), "is not as its table expects"),
        (lambda result: result.update(new_key=1), ""),
    ],
    ids=["missing", "empty", "wrong", "new"],
)
def test_a_result_file_that_lacks_something_fails_the_build(change, told, tmp_path):
    """On a copy of one page, its extensions and one result file."""
    result = json.loads((ROOT / "benchmarks" / "results" / "latency_budget.json").read_text())
    change(result)
    results, docs = tmp_path / "benchmarks" / "results", tmp_path / "docs"
    results.mkdir(parents=True)
    (results / "latency_budget.json").write_text(json.dumps(result))
    (docs / "_ext").mkdir(parents=True)
    for extension in ("benchmark_tables.py", "result_tables.py"):
        (docs / "_ext" / extension).write_text((DOCS / "_ext" / extension).read_text())
    (docs / "conf.py").write_text(
        "import sys, pathlib\n"
        "sys.path.insert(0, str(pathlib.Path(__file__).parent / '_ext'))\n"
        "extensions = ['myst_parser', 'benchmark_tables']\n"
    )
    (docs / "index.md").write_text("# Page\n\n```{benchmark} latency_budget\n```\n")
    built = build(docs, tmp_path / "site")
    assert (built.returncode == 0) == (not told)
    assert told in built.stderr
    page = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert ("drn_tiny" in page) == (not told)

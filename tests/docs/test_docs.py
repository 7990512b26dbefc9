"""The documentation says what is true: names, options, settings and fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
import typer
import yaml
from helpers.docs import COMMANDS, DOCS, ROOT
from pydantic import BaseModel

import drc
from drc.cli.app import app
from drc.graph import ids
from drc.graph.sizes.calls import SizeRule
from drc.graph.sizes.ops import OPS
from drc.report.schema import Report
from drc.settings.reader import load_settings
from drc.settings.recipes import list_recipes, settings_of
from drc.store.networks import Header
from drc.store.plan import Plan
from drc.training.objective import TERMS

SPEED = ("patches_per_second", "waiting")
VALIDATION = ("validation", "validation_seconds")


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def section(name: str, heading: str) -> str:
    """The text under a heading, up to the next heading of the same or a higher level."""
    level = heading.split()[0]
    text = page(name).partition(f"\n{heading}\n")[2]
    assert text, f"{name} has no heading {heading!r}"
    return re.split(rf"^#{{1,{len(level)}}} ", text, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without headings and rulers."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0].startswith("`")]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def code(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.DOTALL | re.MULTILINE)


def test_every_command_is_documented_and_exists():
    listed = {names(row[0])[0] for row in rows(page("commands.md").split("\n## ")[0])}
    assert listed == {f"drc {name}" for name in COMMANDS}


def test_recipes_are_those_in_the_package():
    table = rows(section("training.md", "## Recipes"))
    keys = ("steps", "batch", "lr", "schedule", "warmup", "dual_weight", "ema")
    for row in table:
        scale, found = 4, settings_of(names(row[0])[0], None, 4)
        told = [yaml.safe_load(cell) for cell in row[3:]]
        assert int(row[2]) == found["train"]["patch"] * scale
        assert told == [found["train"][key] for key in keys], row[0]
    assert [names(row[0])[0] for row in table] == list_recipes()


def test_settings_example_is_accepted(tmp_path):
    (example,) = code("commands.md", "yaml")
    path = tmp_path / "settings.yaml"
    path.write_text(example)
    given = yaml.safe_load(example)
    assert load_settings(path, {}).recovery.steps == given["recovery"]["steps"]


def test_exit_codes_are_those_of_the_command():
    table = section("commands.md", "## Exit codes")
    listed = set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE))
    assert listed == set(re.findall(r"\d+", str(typer.main.get_command(app).epilog)))


def test_reasons_for_freezing_are_those_given():
    source = "".join(path.read_text("utf-8") for path in (ROOT / "drc" / "graph").rglob("*.py"))
    reasons = documented_reasons()
    assert len(reasons) > 10
    for reason in reasons:
        assert longest_part(reason) in source


def test_every_reason_for_freezing_is_listed():
    parts = [longest_part(reason) for reason in documented_reasons()]
    given = [why for path in (ROOT / "drc" / "graph").rglob("*.py") for why in frozen_for(path)]
    assert len(given) > 15
    assert not [why for why in given if not any(part in why for part in parts)]


def documented_reasons() -> list[str]:
    table = rows(section("concepts.md", "### What stays frozen, and why"))
    return [reason for row in table for reason in names(row[0])]


def longest_part(reason: str) -> str:
    """Of a reason with `...` in it, the longest text that is always there."""
    return max(re.split(r"\(?\.\.\.\)?", reason), key=len).strip()


def frozen_for(path: Path) -> Iterator[str]:
    """The reasons that stand in calls of `freeze` and `Frozen`, as text or as a constant."""
    for call in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(call, ast.Call):
            continue
        place = {"freeze": 1, "Frozen": 2}.get(ast.unparse(call.func).rpartition(".")[2])
        if place is not None and len(call.args) > place:
            why = call.args[place]
            if isinstance(why, (ast.Constant, ast.JoinedStr)):
                yield ast.unparse(why)
            elif isinstance(why, ast.Name) and why.id.isupper():
                yield getattr(ids, why.id)


def test_every_public_name_is_documented_with_its_arguments():
    text = page("python.md")
    headings = set(re.findall(r"^### drc\.(\S+)$", text, re.MULTILINE))
    assert {name.replace("\\", "") for name in headings} == set(drc.__all__)
    for name in drc.__all__:
        value = getattr(drc, name)
        if not inspect.isfunction(value):
            continue
        (signature,) = re.findall(rf"^drc\.{name}\((.*?)\) -> ", text, re.DOTALL | re.MULTILINE)
        listed = [part.strip() for part in re.split(r",\s+(?![^(]*\))", signature)]
        expected = []
        for parameter in inspect.signature(value).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and "*" not in expected:
                expected.append("*")
            bare = parameter.replace(annotation=parameter.empty)
            expected.append(str(bare).replace("'", '"'))
        assert [part for part in listed if part] == expected, name


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields of a file; entries of a list have [] before the dot."""
    for name, info in model.model_fields.items():
        kinds = (info.annotation, *get_args(info.annotation))
        nested = [k for k in kinds if inspect.isclass(k) and issubclass(k, BaseModel)]
        if not nested or get_origin(info.annotation) is dict or type(None) in kinds:
            yield prefix + name
        if nested and get_origin(info.annotation) is not dict:
            entries = "[]" if get_origin(info.annotation) is list else ""
            yield from fields(nested[0], f"{prefix}{name}{entries}.")


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("## report.json", set(fields(Report))),
        ("## plan.yaml", set(fields(Plan))),
        ("## pruned.safetensors and finetuned.safetensors", set(fields(Header))),
        ("## metrics.jsonl", {"step", *TERMS, *SPEED, "lr", "seconds", *VALIDATION}),
        ("## The cut", {"kept", *(f"sizes[].{f.name}" for f in dataclasses.fields(SizeRule))}),
    ],
)
def test_fields_of_files_are_those_listed(heading, expected):
    listed = [name for row in rows(section("artifacts.md", heading)) for name in names(row[0])]
    assert sorted(listed) == sorted(expected)


def test_kinds_of_size_calls_are_those_listed():
    table = rows(section("artifacts.md", "## The cut"))
    (meaning,) = (row[2] for row in table if row[0] == "`sizes[].op`")
    assert sorted(names(meaning)) == sorted(OPS)


def test_files_of_a_run_are_those_listed(finished_run):
    table = rows(page("artifacts.md").split("\n## ")[0])
    listed = {name for row in table for name in names(row[0])}
    assert listed == {path.name for path in finished_run.run.iterdir()}

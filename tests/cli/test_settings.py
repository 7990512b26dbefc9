"""Settings that cannot be used: one line from the real command, before any work."""

from __future__ import annotations

import pytest
import yaml
from helpers.cli import assert_one_line, drc


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["--ratio", "1.5"], 2, ["search.ratio is 1.5", "less than 1"]),
        (["--ratio", "0"], 2, ["search.ratio is 0", "greater than 0"]),
        (["--budget", "watts"], 2, ["search.budget", "'params'", "'macs'"]),
        (["--scale", "8"], 2, ["drn_tiny has no scale x8", "x4"]),
        (["--model", "drn_tinny"], 2, ["drn_tinny", "did you mean drn_tiny?"]),
        (["--strategy", "alocate"], 2, ["alocate", "allocate"]),
        (["--device", "cuda:99"], 2, ["cuda:99", "cpu"]),
        (["--device", "tpu9"], 2, ["tpu9", "auto, cpu or cuda:N"]),
        (["--config", "nowhere.yaml"], 2, ["nowhere.yaml"]),
        (["--set", "search.patchez=8"], 2, ["search.patchez", "did you mean search.patches?"]),
        (["--set", "search.patches=many"], 2, ["search.patches is 'many'"]),
        (["--set", "search.patches"], 2, ["--set", "NAME=VALUE"]),
        (["--set", "search.ratio=0.5", "--ratio", "7"], 2, ["search.ratio is 7"]),
        (["--ratio", "0.99", "--min-width", "8"], 3, ["99.0%", "can be reached"]),
    ],
)
def test_one_line_and_no_run_folder(work, arguments, code, parts):
    result = drc("search", "--config", work.config, *arguments, cwd=work.folder)
    assert_one_line(result, code, *parts)
    assert not any((work.folder / "runs").glob("*"))


def test_an_unknown_setting_in_the_file_names_the_nearest(work):
    (work.folder / "bad.yaml").write_text(yaml.safe_dump({"search": {"ratoi": 0.3}}))
    result = drc("search", "--model", "drn_tiny", "--config", "bad.yaml", cwd=work.folder)
    assert_one_line(result, 2, "search.ratoi", "did you mean search.ratio?")


def test_without_a_network_the_line_says_how_to_name_one(tmp_path):
    assert_one_line(drc("search", cwd=tmp_path), 2, "--model NAME", "drc models")


def test_compress_checks_the_criterion_before_the_search(work):
    arguments = ["--config", work.config, "--importance", "magic"]
    result = drc("compress", *arguments, cwd=work.folder)
    assert_one_line(result, 2, "magic", "dual_taylor")

"""Settings: defaults, the YAML file, the command line over it, and one-line errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from drc.core.errors import UsageError
from drc.settings.reader import load_settings, parse_assignments


def _yaml(folder: Path, **values: Any) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_command_line_wins_over_the_file(tmp_path):
    path = _yaml(tmp_path, model="drn_s", seed=7, search={"ratio": 0.5, "round_to": 8})
    settings = load_settings(path, {"search": {"ratio": 0.2}})
    assert settings.model == "drn_s"
    assert settings.seed == 7
    assert (settings.search.ratio, settings.search.round_to) == (0.2, 8)
    assert settings.search.patches == 64


def test_null_is_the_default_again_and_an_empty_section_changes_nothing(tmp_path):
    base = {"model": "drn_s", "seed": 3, "recovery": {"teacher": "drn_l"}, "search": {"ratio": 0.5}}
    path = tmp_path / "settings.yaml"
    path.write_text("seed:\nsearch:\n")
    settings = load_settings(path, {"recovery": {"teacher": None}}, base)
    assert (settings.seed, settings.recovery.teacher, settings.search.ratio) == (0, None, 0.5)


def test_settings_survive_a_round_trip_through_yaml(tmp_path):
    settings = load_settings(None, {"model": "drn_tiny", "recovery": {"steps": 5}})
    path = _yaml(tmp_path, **settings.model_dump(mode="json"))
    assert load_settings(path, {}) == settings


def test_paths_become_absolute_because_later_commands_may_start_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(
        None, {"model": "drn_s", "weights": "w.pth", "data": {"data": "photos"}}
    )
    assert settings.weights == str(tmp_path / "w.pth")
    assert settings.data.data == str(tmp_path / "photos")


@pytest.mark.parametrize(("given", "kept"), [("none", "none"), ("default", None), (None, None)])
def test_words_for_weights_are_not_paths(given, kept):
    assert load_settings(None, {"model": "drn_s", "weights": given}).weights == kept


def test_bundled_is_the_word_for_the_default_data():
    data = load_settings(None, {"model": "drn_s", "data": {"data": "bundled"}}).data
    assert data.data is None


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(UsageError, match=r"search\.ratio is .*should be"):
        load_settings(None, {"model": "drn_s", "search": {"ratio": ratio}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"search": {"ratoi": 0.3}}, r"'search\.ratoi'; did you mean search\.ratio\?"),
        ({"ratio": 0.3}, r"'ratio'; did you mean search\.ratio\?"),
        ({"search": {"patch": 0}}, r"search\.patch is 0, but it should be greater"),
        ({"search": {"budget": "watts"}}, r"search\.budget is 'watts', but it should be 'params'"),
        ({"recovery": {"steps": 0}}, r"recovery\.steps is 0"),
        ({"recovery": {"steps": "many"}}, r"recovery\.steps is 'many'"),
        ({"zzzz": 1}, r"no setting 'zzzz'; known: model"),
        ({"search": 3}, r"search is 3"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path, values, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_settings(_yaml(tmp_path, model="drn_s", **values), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: [", "not valid YAML at line"),
        (b"- a\n- b\n", "must hold keys and values"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"", "which network"),
    ],
)
def test_an_unusable_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        load_settings(path, {})
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.yaml: No such file"):
        load_settings(tmp_path / "nowhere.yaml", {})


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["search.patches=128"], {"search": {"patches": 128}}),
        (["seed=1", "seed=2"], {"seed": 2}),
        (["search.lr_size=[48, 64]"], {"search": {"lr_size": [48, 64]}}),
        (["search={ratio: 0.5}", "search.patch=16"], {"search": {"ratio": 0.5, "patch": 16}}),
        (["weights=a=b.pth"], {"weights": "a=b.pth"}),
        (["recovery.teacher=null"], {"recovery": {"teacher": None}}),
    ],
)
def test_an_assignment_reaches_any_setting(texts, expected):
    assert parse_assignments(texts) == expected


@pytest.mark.parametrize("text", ["search.patches", "=3", "search.=3", "seed=[1"])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(UsageError, match="--set") as caught:
        parse_assignments([text])
    assert "\n" not in str(caught.value)


def test_a_run_that_goes_on_starts_from_its_own_settings(tmp_path):
    base = {"model": "drn_s", "seed": 3, "recovery": {"steps": 9, "batch": 2}}
    path = _yaml(tmp_path, recovery={"batch": 4})
    settings = load_settings(path, {"recovery": {"steps": 5}}, base)
    assert (settings.seed, settings.recovery.steps, settings.recovery.batch) == (3, 5, 4)

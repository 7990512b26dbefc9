"""Run folders: made once, found again, never mixed up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from drc.core.errors import RunError
from drc.store.run_folder import RunFolder

CONFIG = {"model": "drn_tiny", "scale": 4, "search": {"ratio": 0.3, "patches": 64}, "device": None}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _create(output: Path | None = None, model: str = "drn_tiny") -> RunFolder:
    return RunFolder.create(output, model, 4, CONFIG)


def test_a_run_is_created_opened_and_read(here: Path) -> None:
    run = _create(here / "deep" / "run")
    assert run.path == here / "deep" / "run"
    opened = RunFolder.open(str(run.path))
    assert opened.read_config() == CONFIG
    assert opened.read_steps() == {}
    run.record("search", {"seconds": 1.5})
    run.record("prune", {"seconds": 0.5, "note": "é"})
    assert opened.read_steps() == {
        "search": {"seconds": 1.5},
        "prune": {"seconds": 0.5, "note": "é"},
    }
    run.record("search", {"seconds": 2.5})  # what was pruned by the older plan is of no plan
    assert opened.read_steps() == {"search": {"seconds": 2.5}}
    run.write_config({**CONFIG, "scale": 8})
    assert opened.read_config()["scale"] == 8
    assert sorted(p.name for p in run.path.iterdir()) == ["config.yaml", "steps.json"]


def test_every_file_has_its_documented_name(here: Path) -> None:
    run = RunFolder(here)
    assert [
        path.name
        for path in (
            run.config_path, run.steps_path, run.plan_path, run.dual_path, run.pruned_path,
            run.finetuned_path, run.checkpoint_path, run.metrics_path, run.report_path,
            run.markdown_path,
        )
    ] == [
        "config.yaml", "steps.json", "plan.yaml", "dual.safetensors", "pruned.safetensors",
        "finetuned.safetensors", "last.ckpt", "metrics.jsonl", "report.json", "report.md",
    ]  # fmt: skip


def test_default_names_tell_model_scale_and_time_and_never_collide(here: Path) -> None:
    runs = [_create() for _ in range(4)]
    assert len({run.path for run in runs}) == 4
    for run in runs:
        assert run.path.parent == Path("runs")
        assert run.path.name.startswith("drn_tiny_x4_20")
    assert RunFolder.newest().path == runs[-1].path


def test_a_foreign_class_name_is_made_a_safe_folder_name(here: Path) -> None:
    run = _create(model="my.pkg:<locals>/../Net")
    assert run.path.parent == Path("runs") and "/" not in run.path.name


def test_the_newest_is_the_last_created_whatever_was_touched_since(here: Path) -> None:
    first, second = _create(here / "runs" / "z"), _create(here / "runs" / "a")
    first.record("search", {"seconds": 1})
    assert RunFolder.newest(here / "runs").path.name == "a"
    shutil.copytree(first.path, here / "runs" / "copy_of_z")
    (here / "runs" / "not_a_run").mkdir()
    (here / "runs" / "file").touch()
    assert RunFolder.find(None).path.name == "a"
    assert RunFolder.find(first.path).path == first.path
    shutil.rmtree(second.path)
    assert RunFolder.newest().path.name == "z"


def test_no_run_says_what_to_do(here: Path) -> None:
    for made in (False, True):
        if made:
            (here / "runs" / "empty").mkdir(parents=True)
        with pytest.raises(RunError) as error:
            RunFolder.find(None)
        assert str(error.value) == "no run in runs/; run `drc search` first, or pass --run DIR"


def test_what_is_no_run_is_not_opened(here: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder nowhere; run `drc search` first"):
        RunFolder.open("nowhere")
    (here / "photos").mkdir()
    with pytest.raises(RunError, match=r"photos is not a drc run folder: it holds no steps\.json"):
        RunFolder.open("photos")


def test_folders_in_use_are_not_taken(here: Path) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "cat.png").touch()
    with pytest.raises(RunError, match="photos is not empty and not a run of drc's"):
        _create(Path("photos"))
    run = _create(Path("run"))
    run.record("search", {"seconds": 1})
    with pytest.raises(RunError, match="run already holds a run; pass --run to go on"):
        _create(Path("run"))
    assert run.read_steps() == {"search": {"seconds": 1}}
    assert sorted(p.name for p in (here / "photos").iterdir()) == ["cat.png"]
    (here / "empty").mkdir()
    assert _create(Path("empty")).read_config() == CONFIG


def test_places_that_cannot_hold_a_run_are_named(here: Path) -> None:
    (here / "file").touch()
    with pytest.raises(RunError, match="cannot use file as a run folder: it is a file"):
        _create(Path("file"))
    with pytest.raises(RunError, match="cannot use file/run as a run folder: "):
        _create(Path("file/run"))
    (here / "runs").touch()
    with pytest.raises(RunError, match=r"cannot make runs/.*; pass --output DIR"):
        _create()
    (here / "runs").unlink()
    (here / "runs").symlink_to(here / "gone")
    with pytest.raises(RunError, match="runs is not a folder; pass --output DIR"):
        _create()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged; move .*run away"),
        ('{"format": "drc-run"', "is damaged; move .*run away"),
        ("[]", "is damaged"),
        ('{"format": "other"}', "is damaged"),
        ('{"format": "drc-run", "schema_version": 1, "steps": {}}', "is damaged"),
        ('{"format": "drc-run", "schema_version": 1, "created": "x", "steps": 3}', "is damaged"),
        ('{"format": "drc-run", "schema_version": 9}', "schema version 9 and this drc reads up to"),
    ],
)
def test_a_damaged_record_is_named(here: Path, text: str, message: str) -> None:
    run = _create(Path("run"))
    run.steps_path.write_text(text)
    with pytest.raises(RunError, match=message) as error:
        RunFolder.open("run")
    assert "\n" not in str(error.value)
    with pytest.raises(RunError, match=message):
        run.record("search", {})
    assert run.steps_path.read_text() == text
    with pytest.raises(RunError, match=message):
        RunFolder.newest(here)


def test_a_missing_or_corrupt_configuration_is_named(here: Path) -> None:
    run = _create(Path("run"))
    run.config_path.write_text("model: [")
    with pytest.raises(RunError, match=r"config\.yaml is corrupt; line 1 is not YAML"):
        run.read_config()
    run.config_path.unlink()
    with pytest.raises(RunError, match=r"there is no file run/config\.yaml"):
        run.read_config()


def test_an_unfinished_creation_is_no_run(here: Path) -> None:
    run = _create(here / "runs" / "a")
    run.steps_path.unlink()
    with pytest.raises(RunError, match="no run in runs/"):
        RunFolder.newest()


def test_the_record_is_plain_json(here: Path) -> None:
    run = _create(Path("run"))
    record = json.loads(run.steps_path.read_text("utf-8"))
    assert list(record) == [
        "format",
        "schema_version",
        "created",
        "kind",
        "model",
        "scale",
        "steps",
    ]
    assert record["created"].endswith("+00:00")

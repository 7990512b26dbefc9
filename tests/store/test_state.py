"""A run folder tells the truth at every instant, wherever a step is cut short."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from helpers.networks import conv
from torch import nn

from drc.core.errors import RunError
from drc.store import folder_store, run_folder
from drc.store.folder_store import FolderStore
from drc.store.run_folder import RunFolder
from drc.store.state import MemoryStore

OLD, NEW = {"attempt": "old"}, {"attempt": "new"}


class Cut(BaseException):
    """What a kill is, to code that is in the middle of something."""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose steps are all finished."""
    run = RunFolder.create(tmp_path / "run", "net", 2, OLD)
    for step in run_folder.STEPS:
        run.record(step, {**OLD, "finished": True})
    for path in (run.pruned_path, run.finetuned_path, run.checkpoint_path, run.report_path):
        path.write_text("old")
    return run


def _store(run: RunFolder) -> FolderStore:
    return FolderStore(run, lambda path: nn.Identity())


def _cut_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every change of the disk but the first `count` be the end of the process."""
    left = itertools.count(-count)

    def counted(work: Any) -> Any:
        def guarded(*given: Any, **named: Any) -> Any:
            if next(left) >= 0:
                raise Cut
            return work(*given, **named)

        return guarded

    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(run_folder, "write_json", counted(run_folder.write_json))
    monkeypatch.setattr(run_folder, "write_yaml", counted(run_folder.write_yaml))
    for name in ("rmtree", "copyfile"):
        monkeypatch.setattr(folder_store.shutil, name, counted(getattr(folder_store.shutil, name)))


def _assert_true(run: RunFolder) -> None:
    """What is recorded as finished is there, and of the attempt that the record tells of."""
    record = run.read_steps()["finetune"]
    store = _store(run)
    if record["finished"]:
        assert record["attempt"] == run.finetuned_path.read_text()
        assert not store.unfinished()
    else:
        assert record["attempt"] == "new"
        assert not (run.checkpoint_path.exists() and run.checkpoint_path.read_text() == "old")
        with pytest.raises(RunError, match="drc finetune"):
            store.network("finetune")


@pytest.mark.parametrize("count", range(12))
def test_a_new_attempt_that_is_cut_short_anywhere(run, count, monkeypatch):
    with monkeypatch.context() as patch:
        _cut_after(count, patch)
        store = _store(run)
        try:
            store.begin("finetune", NEW, NEW)
            run.checkpoint_path.write_text("new")
            run.finetuned_path.write_text("new")
            store.finish("finetune", NEW)
        except Cut:
            pass
        else:
            assert count > 6  # all of it went through
    _assert_true(run)
    _store(run).begin("finetune", NEW, NEW)  # and the next attempt finds its way
    _assert_true(run)


def test_a_step_that_fails_puts_back_what_it_was_to_replace(run):
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    store = _store(run)
    store.begin("prune", NEW, NEW)
    assert not store.finished("prune") and not run.pruned_path.exists()
    assert not run.finetuned_path.exists()  # it was of the pruned network that goes
    run.pruned_path.write_text("half")
    store.abandon("prune", NEW, resumable=False)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_an_interrupted_recovery_keeps_its_settings(run):
    store = _store(run)
    store.begin("finetune", NEW, NEW)
    store.abandon("finetune", {**NEW, "seconds": 1.0}, resumable=True)
    assert run.read_config() == NEW
    assert run.read_steps()["finetune"] == {**NEW, "seconds": 1.0, "finished": False}
    assert "report" not in run.read_steps() and not run.report_path.exists()


def test_a_recovery_that_goes_on_keeps_its_checkpoint(run):
    store = _store(run)
    store.begin("finetune", NEW, NEW)
    run.checkpoint_path.write_text("new")
    again = _store(run)
    assert again.unfinished()
    again.begin("finetune", NEW, NEW, goes_on=True)
    assert run.checkpoint_path.read_text() == "new"


def test_one_command_at_a_time(run):
    refused = pytest.raises(RunError, match="another command is at work")
    with run.locked(), refused, run.locked():
        raise AssertionError
    with run.locked():
        assert not run.finished("nothing")


def test_memory_forgets_what_a_new_attempt_replaces():
    store = MemoryStore()
    network = conv(3, 3)
    for step in ("prune", "finetune"):
        store.begin(step, OLD, OLD)
        store.save_network(step, network, {})
        store.finish(step, OLD)
    assert store.network("finetune") is network
    store.begin("prune", NEW, NEW)
    assert not store.finished("prune") and not store.finished("finetune")
    with pytest.raises(RunError, match="no network of the step finetune"):
        store.network("finetune")

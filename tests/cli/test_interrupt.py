"""Ctrl-C in any step: one line, exit code 130, and the run goes on from where it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.cli import assert_one_line, drc, interrupt

LONG = "24"  # recovery steps: enough to be caught in the middle


def _logged(cwd: Path, text: str) -> Callable[[], bool]:
    return lambda: (cwd / "stderr").exists() and text in (cwd / "stderr").read_text()


def _steps_done(run: Path, count: int) -> Callable[[], bool]:
    metrics = run / "metrics.jsonl"
    return lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= count


def test_recovery_goes_on_as_if_it_had_never_stopped(finished_run, tmp_path):
    runs = [shutil.copytree(finished_run.run, tmp_path / name) for name in ("whole", "stopped")]
    whole, stopped = runs
    for run in runs:
        for name in ("finetuned.safetensors", "last.ckpt", "metrics.jsonl"):
            (run / name).unlink()
    result = drc("finetune", "--run", whole, "--steps", LONG, cwd=tmp_path)
    assert result.returncode == 0, result.stderr

    arguments = ["finetune", "--run", stopped, "--steps", LONG]
    result = interrupt(arguments, tmp_path, _steps_done(stopped, 3))
    resume = f"drc finetune --resume --run {stopped}"
    assert_one_line(result, 130, resume, start="interrupted during finetune")
    assert not (stopped / "finetuned.safetensors").exists()

    result = drc("finetune", "--run", stopped, cwd=tmp_path)
    assert_one_line(result, 1, "unfinished recovery", "--resume")
    result = drc(*resume.split()[1:], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    equal = [(run / "finetuned.safetensors").read_bytes() for run in runs]
    assert equal[0] == equal[1]
    result = drc("finetune", "--resume", "--run", stopped, cwd=tmp_path)
    assert result.returncode == 0
    assert "finished already" in result.stderr


@pytest.mark.parametrize("step", ["search", "finetune"])
def test_compress_resumes_the_step_that_was_stopped(work, step):
    run = work.folder / "out"
    options = ["--config", work.config, "--steps", LONG]
    ready = _steps_done(run, 3) if step == "finetune" else _logged(work.folder, "search ...")
    start = ["compress", *options, "--output", run]
    result = interrupt(start, work.folder, ready)
    assert_one_line(result, 130, "compress --resume --run", start=f"interrupted during {step}")
    assert (run / "plan.yaml").exists() == (step == "finetune")
    result = drc("compress", "--resume", "--run", run, "--ratio", "0.5", cwd=work.folder)
    assert_one_line(result, 2, "another search.ratio")
    result = drc("compress", "--resume", "--run", run, cwd=work.folder)
    assert result.returncode == 0, result.stderr
    assert "after recovery" in result.stdout
    assert ("search took" in result.stderr) == (step == "search")


@pytest.mark.parametrize("step", ["prune", "report"])
def test_a_short_step_is_simply_run_again(finished_run, tmp_path, step):
    run = shutil.copytree(finished_run.run, tmp_path / "run")
    if step == "prune":
        for name in ("finetuned.safetensors", "last.ckpt"):
            (run / name).unlink()
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.suffix != ".json"}
    result = interrupt([step, "--run", run], tmp_path, _logged(tmp_path, f"{step} ..."))
    assert_one_line(result, 130, f"drc {step} --run {run}", start=f"interrupted during {step}")
    for name in ("plan.yaml", "pruned.safetensors", "dual.safetensors"):
        assert (run / name).read_bytes() == before[name]
    result = drc(step, "--run", run, "--quiet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr

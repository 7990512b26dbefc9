"""`drc train`: what it leaves, what it refuses, and that killing it costs one interval at most."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers.cli import DRC, assert_one_line, drc
from helpers.processes import launch
from safetensors.torch import load_file

import drc as package
from drc.data.bundled import bundled_pairs
from drc.data.images import read_image, write_image
from drc.networks.traits import get_traits

TINY = {
    "model": "drn_tiny",
    "data": {"val_images": 1},
    "train": {
        "steps": 12,
        "batch": 2,
        "patch": 8,
        "validate_every": 4,
        "checkpoint_every": 3,
        "log_every": 1,
    },
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five crops of 64x64 of bundled photos."""
    folder = tmp_path_factory.mktemp("photos")
    for pair in bundled_pairs("train"):
        write_image(folder / f"{pair.name}.png", read_image(pair.hr)[:, :64, :64])
    return folder


@pytest.fixture
def config(tmp_path: Path, photos: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump({**TINY, "data": {**TINY["data"], "data": str(photos)}}))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({**TINY, "data": {**TINY["data"], "data": str(photos)}}))
    done = drc("train", "--config", path, "--output", "run", cwd=folder, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_training_leaves_the_best_network_and_its_dual_model(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        ".lock", "config.yaml", "steps.json", "images.tsv", "last.ckpt", "metrics.jsonl",
        "trained.safetensors", "dual.safetensors",
    }  # fmt: skip
    network = package.load(trained / "trained.safetensors")
    assert get_traits(network).preset == "drn_tiny"
    lines = lines_of(trained)
    assert [line["step"] for line in lines] == list(range(1, 13))
    measured = {line["step"]: line["validation"] for line in lines if "validation" in line}
    assert list(measured) == [4, 8, 12]
    state = torch.load(trained / "last.ckpt", weights_only=True)["state"]
    assert round(state["best_value"], 4) == max(measured.values())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state["best"][name]), name
    listed = [line.split("\t")[0] for line in (trained / "images.tsv").read_text().splitlines()]
    assert len(listed) == 5


def test_a_search_takes_what_was_trained_with_its_dual_model(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"search": {"patches": 2, "patch": 8}}))
    weights = trained / "trained.safetensors"
    done = drc("search", "--weights", weights, "--config", "c.yaml", "--output", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = yaml.safe_load((tmp_path / "r" / "plan.yaml").read_text())
    assert plan["notes"] == ["dual model: beside the weights file"]
    ours, theirs = (load_file(run / "dual.safetensors") for run in (tmp_path / "r", trained))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_the_newest_run_is_one_of_the_kind_asked_for(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copytree(trained, tmp_path / "runs" / "train_x")
    assert_one_line(drc("prune", cwd=tmp_path), 1, "no run in runs/; run `drc search` first")
    result = drc("prune", "--run", "runs/train_x", cwd=tmp_path)
    assert_one_line(result, 1, "is a run of `drc train`")
    result = drc("train", "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_resume_with_other_settings_says_what_differs(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    result = drc("train", "--resume", "--run", run, "--lr", "0.01", "--seed", "3", cwd=tmp_path)
    assert_one_line(result, 2, "seed 0 then, 3 now", "train.lr 0.0002 then, 0.01 now")


def test_a_resume_with_fewer_images_names_them(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    photos = shutil.copytree(config["data"]["data"], tmp_path / "photos")
    config["data"]["data"] = str(photos)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    gone = sorted(photos.iterdir())[0]
    gone.unlink()
    result = drc("train", "--resume", "--run", run, cwd=tmp_path)
    assert_one_line(result, 1, "of 5,", f"missing or changed ({gone.stem}", "start a new run")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ((), 2, ("which network?",)),
        (("--model", "drn_s", "--recipe", "drm"), 2, ("no recipe is called 'drm'", "drn")),
        (("--model", "imdn", "--recipe", "paper"), 2, ("no paper's recipe", "imdn")),
        (("--model", "drn_tiny", "--run", "x"), 2, ("--run is for --resume",)),
        (("--resume",), 1, ("no run in runs/", "drc train")),
        (("--model", "drn_tiny", "--steps", "0"), 2, ("train.steps is 0",)),
        (("--model", "drn_tiny", "--log-with", "x"), 2, ("train.log_with",)),
        (("--model", "drn_tiny", "--val-data", "nowhere"), 1, ("nowhere", "no such folder")),
        (("--model", "drn_tiny", "--data", "nowhere"), 1, ("nowhere", "no such folder")),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], code: int, parts: tuple[str, ...], tmp_path: Path
) -> None:
    assert_one_line(drc("train", *arguments, cwd=tmp_path), code, *parts)
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_too_few_images_to_hold_one_out(tmp_path: Path, photos: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(photos.iterdir())[:2]:
        shutil.copy(path, few)
    result = drc("train", "--model", "drn_tiny", "--data", few, cwd=tmp_path)
    assert_one_line(result, 1, "2 images are too few to hold one of them out", "--val-data none")


def test_the_settings_of_a_paper_lie_below_the_options(tmp_path: Path) -> None:
    from drc.settings import TrainRun
    from drc.settings.reader import load_settings

    given = {"model": "drn_s", "scale": 8, "recipe": "paper", "train": {"batch": 4}}
    settings = load_settings(None, given, kind=TrainRun)
    assert (settings.train.steps, settings.train.patch, settings.train.batch) == (10**6, 48, 4)
    blind = load_settings(None, {"model": "dcls", "recipe": "paper"}, kind=TrainRun)
    assert (blind.data.degradation, blind.train.milestones) == ("aniso", (0.4, 0.8))
    plain = load_settings(None, {"model": "slwsr16", "recipe": "slwsr"}, kind=TrainRun)
    assert (plain.train.dual_weight, plain.train.patch) == (0, 48)
    # A run that goes on has all settings in its config.yaml, and they win.
    again = load_settings(None, {}, settings.model_dump(), TrainRun)
    assert again == settings


def test_tensorboard_gets_the_lines_of_the_metrics(tmp_path: Path, config: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = drc(
        "train", "--config", config, "--steps", "4", "--log-with", "tensorboard", "--output", "run",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = events.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    written.Reload()
    losses = [(event.step, event.value) for event in written.Scalars("loss")]
    expected = [(line["step"], pytest.approx(line["loss"])) for line in lines_of(tmp_path / "run")]
    assert losses == expected


KILLS = 4


def test_killed_at_random_moments_it_ends_as_if_it_had_run_through(
    tmp_path: Path, config: Path, trained: Path
) -> None:
    """SIGKILL at moments that no one chose; the seed only spreads them over the run."""
    run, every = tmp_path / "run", TINY["train"]["checkpoint_every"]
    moments = random.Random(os.getpid())
    start = [*DRC, "train", "--config", str(config), "--output", str(run), "--quiet"]
    command, kills, seen = start, 0, 0
    while True:
        with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            if kills < KILLS:
                _wait_for_steps(run, seen + moments.randint(1, every), process)
                time.sleep(moments.uniform(0, 0.05))
                process.send_signal(signal.SIGKILL)
                kills += 1
            code = process.wait(120)
        before, seen = seen, _checked_step(run)
        assert seen >= before
        if code == 0:
            break
        assert code == -signal.SIGKILL
        command = [sys.executable, "-m", "drc", "train", "--resume", "--run", str(run), "--quiet"]
        if not (run / "steps.json").exists():  # killed before there was a run
            shutil.rmtree(run, ignore_errors=True)
            command = start
    whole = load_file(trained / "trained.safetensors")
    broken = load_file(run / "trained.safetensors")
    assert all(torch.equal(broken[name], tensor) for name, tensor in whole.items())
    told = [{k: line[k] for k in ("step", "loss")} for line in lines_of(run)]
    assert told == [{k: line[k] for k in ("step", "loss")} for line in lines_of(trained)]
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == [".lock"]


def _wait_for_steps(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Until the metrics tell of `step`, or the run is over."""
    path = run / "metrics.jsonl"
    step = min(step, TINY["train"]["steps"])
    while process.poll() is None:
        text = path.read_text() if path.exists() else ""
        if f'"step": {step},' in text:
            return
        time.sleep(0.002)


def _checked_step(run: Path) -> int:
    """The step of the checkpoint, which is whole, and behind by less than an interval."""
    path = run / "last.ckpt"
    if not path.exists():
        return 0
    step = int(torch.load(path, weights_only=True)["state"]["step"])
    whole = [
        line for line in (run / "metrics.jsonl").read_text().splitlines(True) if line[-1] == "\n"
    ]
    assert json.loads(whole[-1])["step"] - step <= TINY["train"]["checkpoint_every"]
    return step


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path, config: Path) -> None:
    one = drc("train", "--config", config, "--output", "one", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert one.returncode == 0, one.stderr
    command = ["-m", "drc", "train", "--config", config, "--output", "two", "--json"]
    two = launch(*command, cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    assert json.loads(two.stdout)["steps"] == TINY["train"]["steps"]
    whole, shared = (load_file(tmp_path / run / "trained.safetensors") for run in ("one", "two"))
    for name, tensor in whole.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-2, atol=1e-4, msg=name)
    told = [[line.get("validation") for line in lines_of(tmp_path / run)] for run in ("one", "two")]
    assert told[0] == pytest.approx(told[1], abs=0.01)

"""Networks of the user's in the real command: by --weights alone, and by their own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers.cli import TINY, TinyWork, assert_one_line, drc
from helpers.spandrel import saved_weights, spandrel, with_spandrel

import drc as package
from drc.networks.registry import build
from drc.networks.traits import get_traits
from drc.report.schema import Report
from drc.store.networks import read_header

__all__ = ["spandrel", "with_spandrel"]  # fixtures

CODE = """
from torch import nn

class Mine(nn.Module):
    def __init__(self, scale=2, channels=3):
        super().__init__()
        self.head = nn.Conv2d(channels, 16, 3, padding=1)
        self.tail = nn.Conv2d(16, channels * scale**2, 3, padding=1)
        self.up = nn.PixelShuffle(scale)

    def forward(self, x):
        return self.up(self.tail(self.head(x).relu()))

def grey(): return Mine(channels=1)
def rgba(): return Mine(channels=4)
def five(): return Mine(scale=5)
def noisy():
    print("printed by the factory")
    return Mine()
def fails(): raise OSError("no such file")
"""


@pytest.fixture
def own(work: TinyWork) -> TinyWork:
    """A folder with photos, quick settings that name no network, and code of the user's."""
    (work.folder / "mycode.py").write_text(CODE)
    _settings(work)
    return work


def _settings(work: TinyWork, **changes: dict[str, object]) -> None:
    photos = str(work.folder / "photos")
    values = {key: TINY[key] for key in ("search", "recovery", "report")}
    for section, change in changes.items():
        values[section] = {**values[section], **change}
    values["data"] = {"data": photos, "test_data": photos}
    work.config.write_text(yaml.safe_dump(values))


def _compressed(own: TinyWork, *arguments: str | Path) -> Path:
    """A run of `drc compress` in a folder of the default name."""
    given = ["--config", own.config, "--ratio", "0.3", *arguments]
    result = drc("compress", *given, cwd=own.folder)
    assert result.returncode == 0, result.stderr
    (run,) = (own.folder / "runs").iterdir()
    return run


def _report(run: Path) -> Report:
    report = Report.model_validate_json((run / "report.json").read_text())
    assert report.after.params < report.before.params
    assert report.recovered and report.after.psnr is not None
    return report


def test_weights_that_spandrel_recognises(own, with_spandrel):
    path = saved_weights("SAFMN", own.folder)
    given = ("--config", own.config, "--weights", path)
    for step, arguments in (("search", given), ("prune", ()), ("finetune", ()), ("report", ())):
        result = drc(step, *arguments, cwd=own.folder, **with_spandrel)
        assert result.returncode == 0, f"drc {step}: {result.stderr}"
    (run,) = (own.folder / "runs").iterdir()
    assert run.name.startswith("SAFMN_x4_")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"], config["scale"], config["weights"]) == (None, 4, str(path))
    report = _report(run)
    assert (report.model, report.scale, report.weights) == ("SAFMN", 4, f"file {path}")
    small = package.load(run / "finetuned.safetensors")
    assert sum(p.numel() for p in small.parameters()) == report.after.params
    assert small(torch.rand(1, 3, 9, 13)).shape == (1, 3, 36, 52)


def test_weights_of_a_registered_network_and_a_second_round(own):
    torch.save(build("drn_tiny").state_dict(), own.folder / "w.pth")
    run = _compressed(own, "--weights", "w.pth")
    first = _report(run)
    assert (first.model, first.scale) == ("drn_tiny", 4)
    arguments = ["--config", own.config, "--output", "second", "--json"]
    done = drc("compress", *arguments, "--weights", run / "finetuned.safetensors", cwd=own.folder)
    assert done.returncode == 0, done.stderr
    second = json.loads(done.stdout)
    assert second["before"]["params"] == first.after.params > second["after"]["params"]
    assert package.load(own.folder / "second" / "pruned.safetensors")


def test_code_in_the_current_folder(own):
    run = _compressed(own, "--model", "mycode:Mine")
    assert run.name.startswith("Mine_x2_")
    report = _report(run)
    assert (report.model, report.weights) == ("Mine", "as mycode:Mine makes them")
    header = read_header(run / "pruned.safetensors")
    assert header.network == "mycode.Mine" and header.provenance["model"] == "mycode:Mine"


def test_a_file_of_code_and_weights_from_another_folder(own, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    torch.manual_seed(1)
    namespace: dict[str, object] = {"__name__": "made_here"}
    exec(CODE, namespace)
    torch.save({"params": namespace["Mine"]().state_dict()}, own.folder / "mine.pth")
    given = ["--model", "mycode.py:noisy", "--weights", "mine.pth", "--output", "run"]
    found = drc("search", "--config", own.config, *given, "--json", cwd=own.folder)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["groups"] > 0  # what the code prints does not reach stdout
    assert "printed by the factory" in found.stderr
    for step in ("prune", "report"):
        done = drc(step, "--run", own.folder / "run", cwd=elsewhere)
        assert done.returncode == 0, done.stderr
    report = Report.model_validate_json((own.folder / "run" / "report.json").read_text())
    assert report.weights == f"file {own.folder / 'mine.pth'}"
    assert report.after.params < report.before.params


def test_one_channel_networks_get_the_luma_of_photos(own):
    run = _compressed(own, "--model", "mycode:grey")
    assert _report(run).before.macs == (16 * 9 + 4 * 16 * 9) * 32 * 32
    assert read_header(run / "pruned.safetensors").channels == 1


def test_other_channels_have_no_folders(own):
    result = drc("search", "--config", own.config, "--model", "mycode:rgba", cwd=own.folder)
    assert_one_line(result, 2, "4 channels", "drc.compress(model, loader)")


def test_scales_without_a_dual_model(own):
    arguments = ["--config", own.config, "--model", "mycode:five", "--output", "run"]
    result = drc("compress", *arguments, cwd=own.folder)
    assert_one_line(result, 2, "twos and threes, not 5", "search.dual_weight")
    assert not (own.folder / "run").exists()
    none = {"dual_weight": 0}
    _settings(own, search={**none, "patch": 8}, recovery={**none, "patch": 8})
    result = drc("compress", *arguments, cwd=own.folder)
    assert result.returncode == 0, result.stderr
    report = _report(own.folder / "run")
    assert report.scale == 5 and "dual model: none: dual_weight is 0" in report.notes


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ([], 2, ["which network?", "--model NAME", "--weights FILE"]),
        (["--weights", "none"], 2, ["which network?"]),
        (["--weights", "nowhere.pth"], 1, ["there is no weights file", "nowhere.pth"]),
        (["--model", "mycode:fails"], 2, ["calling mycode:fails failed: OSError", "line 20"]),
        (["--model", "nocode:Mine"], 2, ["there is no module nocode"]),
        (["--model", "mycode:Mine", "--scale", "4"], 2, ["--scale 4", "x2"]),
    ],
)
def test_what_names_no_network(own, arguments, code, parts):
    result = drc("search", "--config", own.config, *arguments, cwd=own.folder)
    assert_one_line(result, code, *parts)
    assert not any((own.folder / "runs").glob("*"))


def test_code_that_changed_meanwhile_is_told(own):
    found = drc("search", "--config", own.config, "--model", "mycode:Mine", cwd=own.folder)
    assert found.returncode == 0, found.stderr
    (own.folder / "mycode.py").write_text(CODE.replace("scale=2", "scale=3"))
    assert_one_line(drc("prune", cwd=own.folder), 2, "--scale 2", "x3")
    (own.folder / "mycode.py").write_text(CODE.replace("16", "12"))
    assert_one_line(drc("prune", cwd=own.folder), 1, "the plan was made for other weights")


def test_spandrels_import_error_is_one_line(own, with_spandrel):
    path = saved_weights("Compact", own.folder)
    (own.folder / "spandrel.py").write_text("raise RuntimeError('operators do not exist')")
    result = drc("search", "--config", own.config, "--weights", path, cwd=own.folder)
    assert_one_line(result, 1, "Compact.pth", "its import fails (operators do not exist)")
    assert get_traits(build("drn_tiny")).blueprint is None

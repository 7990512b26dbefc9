"""A network that estimates blur kernels, compressed and measured by the real commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers.cli import TINY, TinyWork, drc
from safetensors.torch import load_file

from drc.cli.launch import new_run
from drc.compression import NO_BLUR
from drc.core.errors import UsageError
from drc.data.images import read_image
from drc.report.schema import Report
from drc.store.run_folder import RunFolder

CODE = """
from drc.networks.zoo.dcls import DCLS

def net():
    return DCLS(features=16, blocks=1, groups=1, kernel_size=11, latent=24)
"""


def _settings(work: TinyWork, degradation: str) -> None:
    photos = str(work.folder / "photos")
    values = {key: TINY[key] for key in ("search", "recovery", "report")}
    data = {"data": photos, "test_data": photos, "degradation": degradation}
    work.config.write_text(yaml.safe_dump({**values, "data": data}))


@pytest.fixture
def blind(work: TinyWork) -> TinyWork:
    """Blurred crops, and the code of a small network that estimates their blur."""
    (work.folder / "net.py").write_text(CODE)
    _settings(work, "aniso")
    return work


def _files(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The estimator's weights right after pruning and after recovery."""
    folder = RunFolder(run)
    states = (load_file(folder.pruned_path), load_file(folder.finetuned_path))
    pruned, finetuned = (
        {name: x for name, x in state.items() if name.startswith("Estimator.")} for state in states
    )
    return pruned, finetuned


def test_a_blind_network_is_compressed_and_learns_its_kernels(blind: TinyWork) -> None:
    given = ("--model", "net.py:net", "--config", blind.config, "--json")
    result = drc("compress", *given, "--ratio", "0.3", cwd=blind.folder)
    assert result.returncode == 0, result.stderr
    report = Report.model_validate_json(result.stdout)
    run = blind.folder / report.files["run folder"]
    pruned, finetuned = _files(run)
    kept, of = report.plan.groups["Estimator.tail.4"]
    assert kept < of == 24
    assert not any(torch.equal(pruned[name], finetuned[name]) for name in pruned)
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and all(line["kernel"] > 0 for line in lines)
    assert report.kernel_error is not None and 0 < report.kernel_error.after < 2
    assert read_image(blind.folder / report.files["blur kernels"]).shape == (
        3,
        2 * 125 - 4,
        3 * 125 - 4,
    )
    assert "kernel error" in (run / "report.md").read_text()
    assert not any("bicubic" in note for note in report.notes)
    # The steps by themselves: recovery once more, without the kernel's loss.
    blind.config.write_text("recovery: {kernel_weight: 0}")
    again = drc("finetune", "--run", run, "--config", blind.config, "--overwrite", cwd=blind.folder)
    assert again.returncode == 0, again.stderr
    pruned, finetuned = _files(run)
    assert all(torch.equal(pruned[name], finetuned[name]) for name in pruned)


def _params(blind: TinyWork, **options: object) -> dict[str, object]:
    code = f"{blind.folder / 'net.py'}:net"
    run = str(blind.folder / "run")
    return {"model": code, "config": blind.config, "output": run, "quiet": True, **options}


def test_crops_must_show_the_kernels(blind: TinyWork) -> None:
    expected = r"crops of 8x8 .* 11x11 blur kernels that net estimates; set --patch"
    with (
        pytest.raises(UsageError, match=expected),
        new_run("drc search", _params(blind, patch=8)),
    ):
        pass


@pytest.mark.parametrize("degradation", ["bicubic", "aniso"])
def test_a_blind_network_on_bicubic_images_is_noted(blind: TinyWork, degradation: str) -> None:
    _settings(blind, degradation)
    with new_run("drc search", _params(blind)) as session:
        assert session.compression.lacks_blur == (degradation == "bicubic")
        notes = session.compression.provenance().notes
        assert (NO_BLUR in notes) == (degradation == "bicubic")
